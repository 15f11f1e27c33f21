"""Flask-Security's settings."""

from datetime import timedelta
from typing import Any

from flask_security import uia_email_mapper

from bulwark.database import utcnow
from bulwark.identity.security import passkeys, second_factors
from bulwark.identity.security.forms import RESET_LINK_WORKS
from bulwark.settings import Config

BCRYPT_ROUNDS = 12
BCRYPT_ROUNDS_IN_TESTS = 4


def settings_for(config: Config) -> dict[str, Any]:
    """Return the settings of Flask-Security, and of the forms that it uses."""
    options = {
        **_features(),
        **_passwords(config),
        **_sessions(),
        **_emails(config),
        **_second_factors(config),
        **_passkeys(config),
    }
    return {f"SECURITY_{name}": value for name, value in options.items()} | {
        # Otherwise, a rotation would invalidate the forms that are open.
        "WTF_CSRF_SECRET_KEY": config.signing_keys,
        "WTF_CSRF_TIME_LIMIT": None,  # A token lives as long as its session.
        "WTF_CSRF_SSL_STRICT": False,  # It only checks the referrer; see `origins`.
    }


def _features() -> dict[str, Any]:
    return {
        "RECOVERABLE": True,
        "CHANGEABLE": True,
        "TRACKABLE": True,
        "RETURN_GENERIC_RESPONSES": True,
        "USER_IDENTITY_ATTRIBUTES": [{"email": {"mapper": uia_email_mapper}}],
        # Its join takes 400 ms in SQLite with 100,000 users: it nests two joins, and
        # SQLite evaluates the inner one first, for all users.
        "JOIN_USER_ROLES": False,
        "POST_LOGIN_VIEW": "/account",
        "POST_CHANGE_VIEW": "/account",
        "SCRIPT_NONCE_KEY": "csp_nonce",
        "DATETIME_FACTORY": utcnow,
        "STATIC_FOLDER": None,
        "CLI_USERS_NAME": None,
        "CLI_ROLES_NAME": None,
    }


def _passwords(config: Config) -> dict[str, Any]:
    in_tests = config.environment == "testing"
    rounds = BCRYPT_ROUNDS_IN_TESTS if in_tests else BCRYPT_ROUNDS
    return {
        "PASSWORD_HASH": "bcrypt",
        "PASSWORD_SCHEMES": ["bcrypt"],
        "DEPRECATED_PASSWORD_SCHEMES": ["auto"],
        "PASSWORD_HASH_PASSLIB_OPTIONS": {"bcrypt__rounds": rounds},
        # Flask-Security calls it a salt; it is the key of an HMAC before bcrypt.
        "PASSWORD_SALT": config.password_pepper,
        "PASSWORD_CONFIRM_REQUIRED": False,
        # The hash inside a reset link; a slow one would reveal who has an account.
        "HASHING_SCHEMES": ["hex_sha256"],
        "RESET_PASSWORD_WITHIN": RESET_LINK_WORKS,
        "AUTO_LOGIN_AFTER_RESET": False,
    }


def _sessions() -> dict[str, Any]:
    return {
        "LOGOUT_METHODS": ["POST"],
        # The default, `no-store=True`, is not a directive (RFC 9111, 5.2.2.5).
        "CACHE_CONTROL": {"no-store": None, "private": None},
        "FRESHNESS": timedelta(minutes=15),
        # No grace period: each visit would extend it.
        "FRESHNESS_GRACE_PERIOD": timedelta(0),
        "FRESHNESS_ALLOW_AUTH_TOKEN": False,
        "API_ENABLED_METHODS": ["session"],
    }


def _emails(config: Config) -> dict[str, Any]:
    return {
        "EMAIL_SENDER": config.sender,
        # The HTML part is generated from the text part.
        "EMAIL_HTML": False,
        # `notifications` sends both.
        "SEND_PASSWORD_CHANGE_EMAIL": False,
        "SEND_PASSWORD_RESET_NOTICE_EMAIL": False,
        # Without the code: lock screens show subjects.
        "EMAIL_SUBJECT_TWO_FACTOR": f"Your code for {config.name}",
        "EMAIL_SUBJECT_PASSWORD_RESET": f"Set a new password for {config.name}",
    }


def _second_factors(config: Config) -> dict[str, Any]:
    methods = ["authenticator", *(["email"] if config.email_codes else [])]
    return {
        "TWO_FACTOR": True,
        "TWO_FACTOR_ENABLED_METHODS": methods,
        "TWO_FACTOR_AUTHENTICATOR_VALIDITY": second_factors.TOTP_STEP,
        "TWO_FACTOR_RESCUE_EMAIL": False,
        "TWO_FACTOR_ALWAYS_VALIDATE": True,
        "TWO_FACTOR_SETUP_URL": "/account/authenticator",
        "TWO_FACTOR_TOKEN_VALIDATION_URL": "/login/code",
        "TWO_FACTOR_SELECT_URL": "/login/factor",
        "TWO_FACTOR_RESCUE_URL": "/login/lost",
        "TWO_FACTOR_POST_SETUP_VIEW": "/account/second-factor/done",
        "TWO_FACTOR_IMPLEMENTATIONS": {
            "code": "flask_security.twofactor.CodeTfPlugin",
            "webauthn": "bulwark.identity.security.passkeys.SecondStep",
        },
        "TOTP_SECRETS": second_factors.totp_secrets(config.encryption_keys),
        "TOTP_ISSUER": second_factors.issuer(config),
        "MULTI_FACTOR_RECOVERY_CODES": True,
        "MULTI_FACTOR_RECOVERY_CODES_N": second_factors.RECOVERY_CODES,
        "MULTI_FACTOR_RECOVERY_CODES_URL": "/account/recovery-codes",
        "MULTI_FACTOR_RECOVERY_URL": "/login/recovery",
    }


def _passkeys(config: Config) -> dict[str, Any]:
    return {
        "WEBAUTHN": True,
        "WAN_RP_NAME": config.name,
        "WAN_ALLOW_USER_HINTS": False,
        "WAN_ALLOW_AS_FIRST_FACTOR": True,
        "WAN_ALLOW_AS_MULTI_FACTOR": True,
        "WAN_ALLOW_AS_VERIFY": [passkeys.USAGE],
        "WAN_POST_REGISTER_VIEW": "/account/second-factor/done",
        "WAN_NAME_MAX_LENGTH": passkeys.NAME_LENGTH,
        # Unicode categories: letters, marks, digits, punctuation and spaces.
        "WAN_NAME_ALLOWED_CHARS": ["L", "M", "N", "P", "Zs"],
        "WAN_REGISTER_URL": "/account/passkeys",
        "WAN_DELETE_URL": "/account/passkeys/remove",
        "WAN_SIGNIN_URL": "/login/passkey",
        "WAN_VERIFY_URL": "/verify/passkey",
        "WAN_SIGNIN_WITHIN": timedelta(minutes=5),
    }
