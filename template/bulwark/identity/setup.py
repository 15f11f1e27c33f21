"""Sets up the accounts: Flask-Security with what `security` adapts, and sessions."""

from collections.abc import Mapping, Sequence
from typing import Any

from flask import Flask, Response, jsonify, make_response, redirect, request, url_for
from flask.typing import ResponseReturnValue
from flask_security import Security, SQLAlchemyUserDatastore
from itsdangerous import Serializer

from bulwark.database import db
from bulwark.identity import (
    accept_invitation,
    csrf,
    notifications,
    session_interface,
    sign_up_options,
    signup,
    throttling,
    token_authentication,
)
from bulwark.identity.commands import commands
from bulwark.identity.models import BaseUser, Passkey, Role
from bulwark.identity.security import (
    factor_forms,
    forms,
    passkeys,
    password_hashing,
    principal,
    reauthentication,
    second_factors,
    signals,
    view_access,
)
from bulwark.identity.security.messages import MESSAGES
from bulwark.identity.security.password_policy import PasswordPolicy
from bulwark.identity.security.settings import settings_for
from bulwark.identity.sign_up_options import SignUp
from bulwark.mail.addresses import OutboxMailUtil
from bulwark.settings import Config
from bulwark.web import access
from bulwark.web.access import ADMINISTRATOR
from bulwark.web.errors import wants_json


def init_app(
    app: Flask,
    config: Config,
    user_model: type[BaseUser],
    roles: Mapping[str, Sequence[str]],
    sign_up: SignUp,
) -> None:
    """Serve the account pages, and reject unsafe requests without a CSRF token."""
    app.config.update(settings_for(config) | MESSAGES)
    csrf.init_app(app)
    _init_flask_security(app, config, user_model)
    session_interface.init_app(app)
    # Replaces Flask-Security's own tokens, which are also accepted in URLs.
    token_authentication.init_app(app)
    signals.init_app(app)
    notifications.init_app(app)
    sign_up_options.init_app(app, sign_up, user_model, roles)
    signup.init_app(app)
    accept_invitation.init_app(app)
    throttling.init_app(app)
    view_access.init_app(app)
    app.extensions["roles"] = {ADMINISTRATOR: list(access.PERMISSIONS), **roles}
    app.cli.add_command(commands)


def _init_flask_security(
    app: Flask, config: Config, user_model: type[BaseUser]
) -> None:
    security = Security(
        app,
        SQLAlchemyUserDatastore(db, user_model, Role, Passkey),
        mail_util_cls=OutboxMailUtil,
        password_util_cls=PasswordPolicy,
        totp_cls=second_factors.OneTimeTotp,
        mf_recovery_codes_util_cls=second_factors.HashedRecoveryCodes,
        webauthn_util_cls=passkeys.Passkeys,
        **forms.FORMS,
        **factor_forms.FORMS,
        **passkeys.FORMS,
        **reauthentication.FORMS,
    )
    sign_with_newest_key(security, config)
    security.render_json(_render_json)
    security.unauthn_handler(lambda *_: make_response(_redirect_to_sign_in()))
    app.login_manager.unauthorized_handler(_redirect_to_sign_in)  # type: ignore[attr-defined]
    principal.init_app(app, security)
    second_factors.init_app(app)
    password_hashing.init_app(security)
    passkeys.init_app(security)
    reauthentication.init_app(app)


def sign_with_newest_key(security: Security, config: Config) -> None:
    """Order Flask-Security's signing keys: by default, the oldest one signs."""
    for serializer in vars(security).values():
        if isinstance(serializer, Serializer):
            serializer.secret_keys = [key.encode() for key in config.signing_keys]


def _render_json(
    payload: dict[str, Any], code: int, headers: Any = None, user: Any = None
) -> Response:
    """Respond without the user: their presence would reveal who has an account."""
    payload.pop("user", None)
    response = jsonify(meta={"code": code}, response=payload)
    response.status_code = code
    response.headers.extend(headers or {})
    return response


def _redirect_to_sign_in() -> ResponseReturnValue:
    """Redirect to the sign-in page, and from there back to the requested page."""
    if wants_json():
        return token_authentication.challenge()
    target = request.full_path.rstrip("?") if request.method == "GET" else None
    return redirect(url_for("security.login", next=target))
