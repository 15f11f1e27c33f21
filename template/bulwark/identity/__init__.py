"""Accounts: sign-up, sign-in, passwords and emails, with Flask-Security-Too."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from flask import Flask, Response, jsonify, make_response, redirect, request, url_for
from flask.typing import ResponseReturnValue
from flask_security import Security, SQLAlchemyUserDatastore, uia_email_mapper

from bulwark.database import db, utcnow
from bulwark.identity import (
    email_changes,
    notifications,
    sessions,
    signup,
    throttling,
    tokens,
)
from bulwark.identity.commands import commands
from bulwark.identity.models import BaseUser, Passkey, Role
from bulwark.identity.security import (
    factor_forms,
    passkeys,
    password_hashing,
    reauthentication,
    second_factors,
    signals,
)
from bulwark.identity.security.forms import FORMS, MESSAGES, RESET_LINK_WORKS
from bulwark.identity.security.password_policy import PasswordPolicy
from bulwark.mail.addresses import OutboxMailUtil
from bulwark.settings import Config
from bulwark.web import access
from bulwark.web.access import ADMINISTRATOR
from bulwark.web.errors import wants_json

PUBLIC_VIEWS = (
    "login",
    "tf_select",
    "two_factor_token_validation",
    "two_factor_rescue",
    "mf_recovery",
    "wan_signin",
    "wan_signin_response",
    "forgot_password",
    "reset_password",
)
SIGNED_IN_VIEWS = ("change_password", "wan_delete")
# Also open to users who must set up a second factor first.
SETUP_VIEWS = (
    "logout",
    "verify",
    "wan_verify",
    "wan_verify_response",
    "two_factor_setup",
    "two_factor_setup_validate",
    "mf_recovery_codes",
    "wan_register",
    "wan_register_response",
)
# Flask-Security requires a recent sign-in here; declared for the access matrix, too.
RECENT_VIEWS = (
    "two_factor_setup",
    "mf_recovery_codes",
    "wan_register",
    "wan_delete",
)

BCRYPT_ROUNDS = 12
BCRYPT_ROUNDS_IN_TESTS = 4

csrf = tokens.CSRF()


def init_app(
    app: Flask,
    config: Config,
    user_model: type[BaseUser],
    roles: Mapping[str, Sequence[str]],
) -> None:
    """Serve the account pages, and reject unsafe requests without a CSRF token."""
    app.config.update(_settings(config) | MESSAGES | factor_forms.MESSAGES)
    csrf.init_app(app)
    security = Security(
        app,
        SQLAlchemyUserDatastore(db, user_model, Role, Passkey),
        mail_util_cls=OutboxMailUtil,
        password_util_cls=PasswordPolicy,
        totp_cls=second_factors.OneTimeTotp,
        mf_recovery_codes_util_cls=second_factors.HashedRecoveryCodes,
        webauthn_util_cls=passkeys.Passkeys,
        **FORMS,
        **factor_forms.FORMS,
        **passkeys.FORMS,
        **reauthentication.FORMS,
    )
    security.render_json(_render_json)
    security.unauthn_handler(lambda *_: make_response(_ask_to_sign_in()))
    app.login_manager.unauthorized_handler(_ask_to_sign_in)  # type: ignore[attr-defined]
    second_factors.init_app(app)
    password_hashing.init_app(security)
    passkeys.init_app(security)
    reauthentication.init_app(app)
    sessions.init_app(app)
    # Replaces Flask-Security's own tokens, which are also accepted in URLs.
    tokens.init_app(app)
    signals.init_app(app)
    notifications.init_app(app)
    signup.init_app(app)
    email_changes.init_app(app)
    throttling.init_app(app)
    access.declare(app, access.PUBLIC, [f"security.{v}" for v in PUBLIC_VIEWS])
    access.declare(
        app,
        access.SIGNED_IN,
        [f"security.{view}" for view in (*SIGNED_IN_VIEWS, *SETUP_VIEWS)],
    )
    for view in SETUP_VIEWS:
        access.while_setting_up(app.view_functions[f"security.{view}"])
    for view in RECENT_VIEWS:
        access.recent(app.view_functions[f"security.{view}"])
    app.extensions["roles"] = {ADMINISTRATOR: list(access.PERMISSIONS), **roles}
    app.cli.add_command(commands)


def _settings(config: Config) -> dict[str, Any]:
    rounds = (
        BCRYPT_ROUNDS_IN_TESTS if config.environment == "testing" else BCRYPT_ROUNDS
    )
    options = {
        **second_factors.settings_for(config),
        **passkeys.settings_for(config),
        "RECOVERABLE": True,
        "CHANGEABLE": True,
        "TRACKABLE": True,
        "PASSWORD_HASH": "bcrypt",
        "PASSWORD_SCHEMES": ["bcrypt"],
        "DEPRECATED_PASSWORD_SCHEMES": ["auto"],
        "PASSWORD_HASH_PASSLIB_OPTIONS": {"bcrypt__rounds": rounds},
        # Flask-Security calls it a salt; it is the key of an HMAC before bcrypt.
        "PASSWORD_SALT": config.password_pepper,
        "PASSWORD_CONFIRM_REQUIRED": False,
        # The hash inside a reset link; a slow one would reveal who has an account.
        "HASHING_SCHEMES": ["hex_sha256"],
        "RETURN_GENERIC_RESPONSES": True,
        # Its join is slow in SQLite with many users; see `with_roles`.
        "JOIN_USER_ROLES": False,
        "USER_IDENTITY_ATTRIBUTES": [{"email": {"mapper": uia_email_mapper}}],
        "RESET_PASSWORD_WITHIN": RESET_LINK_WORKS,
        "AUTO_LOGIN_AFTER_RESET": False,
        # `notices` sends both.
        "SEND_PASSWORD_CHANGE_EMAIL": False,
        "SEND_PASSWORD_RESET_NOTICE_EMAIL": False,
        "POST_LOGIN_VIEW": "/account",
        "POST_CHANGE_VIEW": "/account",
        "LOGOUT_METHODS": ["POST"],
        # The default, `no-store=True`, is not a directive (RFC 9111, 5.2.2.5).
        "CACHE_CONTROL": {"no-store": None, "private": None},
        "FRESHNESS": timedelta(minutes=15),
        # No grace period: each visit would extend it.
        "FRESHNESS_GRACE_PERIOD": timedelta(0),
        "FRESHNESS_ALLOW_AUTH_TOKEN": False,
        "API_ENABLED_METHODS": ["session"],
        "DATETIME_FACTORY": utcnow,
        "EMAIL_SENDER": config.sender,
        # The HTML part is generated from the text part.
        "EMAIL_HTML": False,
        "SCRIPT_NONCE_KEY": "csp_nonce",
        "STATIC_FOLDER": None,
        "CLI_USERS_NAME": None,
        "CLI_ROLES_NAME": None,
        **_subjects(config.name),
    }
    return {f"SECURITY_{name}": value for name, value in options.items()} | {
        "WTF_CSRF_TIME_LIMIT": None,  # A token lives as long as its session.
        "WTF_CSRF_SSL_STRICT": False,  # It only checks the referrer; see `origins`.
    }


def _subjects(name: str) -> dict[str, str]:
    return {
        # Without the code: lock screens show subjects.
        "EMAIL_SUBJECT_TWO_FACTOR": f"Your code for {name}",
        "EMAIL_SUBJECT_PASSWORD_RESET": f"Set a new password for {name}",
    }


def _render_json(
    payload: dict[str, Any], code: int, headers: Any = None, user: Any = None
) -> Response:
    """Respond without the user: their presence would reveal who has an account."""
    payload.pop("user", None)
    response = jsonify(meta={"code": code}, response=payload)
    response.status_code = code
    response.headers.extend(headers or {})
    return response


def _ask_to_sign_in() -> ResponseReturnValue:
    """Redirect to the sign-in page, and from there back to the requested page."""
    if wants_json():
        return tokens.challenge()
    wanted = request.full_path.rstrip("?") if request.method == "GET" else None
    return redirect(url_for("security.login", next=wanted))
