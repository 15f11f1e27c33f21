"""The catalogue of security events: the level and the meaning of each.

The names are those of the OWASP Logging Vocabulary. It has none for second factors and
password resets, so those are defined here.
"""

import logging
from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """The meaning of one kind of event.

    Args:
        level: the level of the log line, as in `logging`.
        user_text: the text in the history of the user concerned; "" hides it there.
        meaning: the description for operators.
        audited: whether it is a row of the audit trail. Events that anyone can cause
            without limit, or while the database may be down, are only logged.
    """

    level: int
    user_text: str
    meaning: str
    audited: bool = True


INFO, WARNING = logging.INFO, logging.WARNING
ERROR, CRITICAL = logging.ERROR, logging.CRITICAL

CATALOGUE: dict[str, Kind] = {
    "authn_login_success": Kind(INFO, "You signed in", "A user signed in"),
    "authn_login_successafterfail": Kind(
        INFO, "You signed in after failed attempts", "A user signed in after failures"
    ),
    "authn_login_fail": Kind(
        WARNING, "A wrong password was entered", "A sign-in failed at the first step"
    ),
    "authn_login_fail_max": Kind(
        WARNING,
        "Too many failed attempts: signing in was paused",
        "Failed attempts for an account reached the limit",
    ),
    "authn_login_lock": Kind(
        WARNING, "Your account was locked", "An account was locked"
    ),
    "authn_login_unlock": Kind(
        INFO, "Your account was unlocked", "An account was unlocked"
    ),
    "authn_logout": Kind(INFO, "You signed out", "A user signed out"),
    "authn_password_change": Kind(
        INFO, "Your password was changed", "A user changed their password"
    ),
    "authn_password_change_fail": Kind(
        WARNING,
        "A password change failed: the current password was wrong",
        "A signed-in user entered a wrong current password",
    ),
    "authn_reset_requested": Kind(
        INFO, "A password reset was requested", "A password reset was requested"
    ),
    "authn_reset_completed": Kind(
        INFO,
        "A new password was set with a link from an email",
        "A password was set with a link from an email",
    ),
    "authn_reauth_fail": Kind(
        WARNING,
        "A wrong password was entered before a sensitive action",
        "A signed-in user failed to reauthenticate",
    ),
    "authn_mfa_enrolled": Kind(
        INFO, "A second factor was added", "A second factor was added"
    ),
    "authn_mfa_removed": Kind(
        WARNING, "A second factor was removed", "A second factor was removed"
    ),
    "authn_mfa_success": Kind(
        INFO, "Your second factor was accepted", "A second factor was accepted"
    ),
    "authn_mfa_fail": Kind(
        WARNING,
        "A wrong second factor was entered after your password",
        "The password was correct, but the second factor was wrong",
    ),
    "authn_recovery_codes_made": Kind(
        INFO, "New recovery codes were created", "New recovery codes were created"
    ),
    "authn_recovery_code_used": Kind(
        WARNING, "A recovery code was used", "A user signed in with a recovery code"
    ),
    "authn_token_created": Kind(
        INFO, "An access token was created", "A personal access token was created"
    ),
    "authn_token_revoked": Kind(
        INFO, "An access token was revoked", "A personal access token was revoked"
    ),
    "authn_token_reuse": Kind(
        WARNING,
        "An expired or revoked access token was used",
        "An access token that is no longer valid was used",
    ),
    "authz_fail": Kind(WARNING, "", "A user lacked the permission for a request"),
    "authz_change": Kind(
        INFO, "Your roles were changed", "A user's roles were changed"
    ),
    "authz_admin": Kind(
        WARNING,
        "An administrator took an action on your account",
        "An administrator took an action on an account",
    ),
    "privilege_permissions_changed": Kind(
        WARNING, "", "The permissions of a role were changed"
    ),
    "sensitive_read": Kind(
        INFO, "", "An administrator viewed or exported data of users"
    ),
    "user_created": Kind(INFO, "Your account was created", "An account was created"),
    "user_updated": Kind(
        INFO, "Your profile was changed", "A user changed their profile"
    ),
    "user_terms_accepted": Kind(
        INFO, "You accepted the terms of use", "A user accepted the terms of use"
    ),
    "user_email_change_requested": Kind(
        INFO,
        "A change of your email address was requested",
        "A signed-in user requested a change of their email address",
    ),
    "user_email_change_stopped": Kind(
        WARNING,
        "The change of your email address was stopped",
        "A change of an email address was stopped from the old address",
    ),
    "user_email_changed": Kind(
        WARNING,
        "Your email address was changed",
        "An account's email address was changed",
    ),
    "session_expired": Kind(INFO, "", "A session reached its time limit"),
    "session_revoked": Kind(
        INFO, "Sessions were signed out", "Sessions were signed out remotely"
    ),
    "excess_rate_limit_exceeded": Kind(WARNING, "", "A limit was reached"),
    "input_validation_fail": Kind(
        WARNING, "", "A request contained invalid input", audited=False
    ),
    "upload_malware": Kind(
        WARNING, "", "An uploaded file contained malware; it was refused", audited=False
    ),
    "upload_delete": Kind(
        INFO, "", "Files that no row refers to were deleted", audited=False
    ),
    "sys_startup": Kind(INFO, "", "A part of the service started", audited=False),
    "sys_shutdown": Kind(INFO, "", "A part of the service stopped", audited=False),
    "sys_promises_given_up": Kind(
        WARNING,
        "",
        "The service started without promises that its team gives up on purpose",
        audited=False,
    ),
    "sys_error": Kind(
        ERROR, "", "A request or job failed with an error", audited=False
    ),
    "sys_job_failed": Kind(
        ERROR,
        "",
        "A job failed at its last try; it waits for a decision",
        audited=False,
    ),
    "sys_job_retried": Kind(WARNING, "", "An administrator retried a failed job"),
    "sys_job_discarded": Kind(WARNING, "", "An administrator discarded a failed job"),
    "sys_job_refused": Kind(
        CRITICAL,
        "",
        "The queue contained a row that this service did not write; it was not run",
    ),
    "sys_jobs_adopted": Kind(
        WARNING, "", "Unsigned jobs that an earlier release had queued were kept"
    ),
    "sys_keys_rotated": Kind(INFO, "", "All values were encrypted with the newest key"),
    "sys_mail_dropped": Kind(
        ERROR,
        "",
        "An email was dropped: the server rejected it, or failed for days",
        audited=False,
    ),
    "sys_database_unreachable": Kind(
        ERROR, "", "The database is down, full or locked", audited=False
    ),
    "sys_backup_created": Kind(INFO, "", "A backup was created", audited=False),
    "sys_backup_failed": Kind(ERROR, "", "Creating a backup failed", audited=False),
    "sys_backup_restored": Kind(WARNING, "", "A backup was restored", audited=False),
    "sys_restore_failed": Kind(ERROR, "", "Restoring a backup failed", audited=False),
    "sys_restore_drill_passed": Kind(
        INFO, "", "A restore drill restored the newest backup", audited=False
    ),
    "sys_restore_drill_failed": Kind(
        ERROR, "", "A restore drill could not restore a backup", audited=False
    ),
    "sys_audit_anchored": Kind(
        INFO, "", "The end of the audit trail was written to a file", audited=False
    ),
    "sys_audit_broken": Kind(
        CRITICAL, "", "The audit trail was changed", audited=False
    ),
    "sys_audit_pruned": Kind(WARNING, "", "Old rows of the audit trail were deleted"),
    "sys_limiter_degraded": Kind(
        CRITICAL, "", "Redis is down: each process counts its own requests"
    ),
}


# The values of `factor` in an event's details, and their names for users.
FACTORS = {
    "password": "password",
    "totp": "authenticator app",
    "passkey": "passkey",
    "email": "code by email",
    "code": "code",
    "recovery_code": "recovery code",
    "all": "authenticator app, passkeys and recovery codes",
}
