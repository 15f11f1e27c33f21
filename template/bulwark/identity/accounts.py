"""Actions of administrators on accounts: locks, sign-outs, resets.

Each function records one event in the current transaction, which the caller commits.
`by` is the administrator who acts; None is the operator at the command line, who may do
everything.
"""

from bulwark import settings
from bulwark.database import db
from bulwark.identity import (
    administrators,
    password_links,
    sessions,
    tokens,
    users,
)
from bulwark.identity.authorization import RefusedError, check_rights
from bulwark.identity.models import BaseUser


def lock(user: BaseUser, *, by: BaseUser | None, reason: str) -> None:
    """Lock an account, from its next request until `unlock`."""
    administrators.serialize_changes()
    check_rights(by, user.roles)
    if not user.active:
        raise RefusedError("This account is already locked.")
    administrators.require_another(user)
    user.active = False
    users.datastore().set_uniquifier(user)  # Invalidates links sent earlier.
    sessions.end_all(user)
    administrators.record("authn_login_lock", user, by, reason)


def unlock(user: BaseUser, *, by: BaseUser | None, reason: str) -> None:
    """Unlock an account."""
    administrators.serialize_changes()
    check_rights(by, user.roles)
    if user.active:
        raise RefusedError("This account is not locked.")
    user.active = True
    administrators.record("authn_login_unlock", user, by, reason)


def sign_out(
    user: BaseUser, session_id: int | None = None, *, by: BaseUser | None, reason: str
) -> None:
    """End one session of a user, or all of them."""
    check_rights(by, user.roles)
    if session_id is None:
        ended = sessions.end_all(user)
    else:
        ended = int(sessions.end(user, session_id))
        if not ended:
            raise RefusedError("This session has already ended.")
    administrators.record("session_revoked", user, by, reason, ended=ended)


def force_reset(user: BaseUser, *, by: BaseUser | None, reason: str) -> None:
    """Remove the password, and email the user a link to choose a new one.

    Only the user ever chooses the password. Passkeys and the authenticator app stay.
    """
    check_rights(by, user.roles)
    if not user.active:
        raise RefusedError("This account is locked. Unlock it first.")
    password_links.count_email(user.email, by)
    user.password = None
    users.datastore().set_uniquifier(user)
    sessions.end_all(user)
    tokens.revoke_all(user)
    administrators.record("authz_admin", user, by, reason, action="force_reset")
    db.session.flush()
    subject = f"Set a new password for {settings.current().name}"
    password_links.send(user, password_links.create(user), subject, "forced_reset")


def require_second_factor(
    user: BaseUser, required: bool, *, by: BaseUser | None, reason: str
) -> None:
    """Require a second factor for an account, or stop requiring one."""
    check_rights(by, user.roles)
    if user.second_factor_required == required:
        state = "already" if required else "not"
        raise RefusedError(f"A second factor is {state} required for this account.")
    user.second_factor_required = required
    action = "require_second_factor" if required else "no_longer_require_second_factor"
    administrators.record("authz_admin", user, by, reason, action=action)


def reset_factors(user: BaseUser, *, by: BaseUser | None, reason: str) -> None:
    """Remove the authenticator app, passkeys and recovery codes of a user.

    Only for operators: it requires proof of identity as strong as when the factors were
    added (OWASP ASVS 5.0, 6.4.4), which a web page can't check.
    """
    check_rights(by, user.roles)
    if not (user.has_second_factor or user.mf_recovery_codes):
        raise RefusedError("They have no second factor.")
    user.tf_totp_secret = user.tf_primary_method = None
    user.webauthn = []
    user.mf_recovery_codes = []
    sessions.end_all(user)
    administrators.record("authn_mfa_removed", user, by, reason, factor="all")
