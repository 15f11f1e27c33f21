"""Handlers of Flask-Security's signals: they record events and end sessions."""

from typing import Any

from flask import Flask, g, request, session
from flask_login import user_logged_out
from flask_security import signals

from bulwark.audit import events
from bulwark.database import utcnow
from bulwark.identity import devices, sessions, throttling, tokens
from bulwark.identity.models import BaseUser

REAUTHENTICATION = ("security.verify", "security.wan_verify_response")
# The endpoints that complete a sign-in after the password, and their factors.
SECOND_STEPS = {
    "security.two_factor_token_validation": "totp",
    "security.mf_recovery": "recovery_code",
    "security.wan_signin_response": "passkey",
}
# Flask-Security's names of factors, mapped to ours.
FACTORS = {"authenticator": "totp", "code": "totp", "webauthn": "passkey"}


def init_app(app: Flask) -> None:
    """Connect the handlers."""
    signals.user_authenticated.connect(_signed_in, app)
    signals.user_failed_authn.connect(_failed, app)
    signals.password_changed.connect(_password_changed, app)
    signals.reset_password_instructions_sent.connect(_reset_requested, app)
    signals.password_reset.connect(_password_reset, app)
    signals.tf_code_confirmed.connect(_code_confirmed, app)
    signals.tf_profile_changed.connect(_app_added, app)
    signals.tf_disabled.connect(_app_removed, app)
    signals.wan_registered.connect(_passkey_added, app)
    signals.wan_deleted.connect(_passkey_removed, app)
    user_logged_out.connect(_signed_out, app)


def _signed_in(_: Flask, user: BaseUser, authn_via: Any, **__: Any) -> None:
    if authn_via == ["change"]:
        return  # A changed password has its own signal.
    second = None if authn_via else SECOND_STEPS.get(str(request.endpoint))
    if second == "recovery_code":
        events.record("authn_recovery_code_used", user, actor=user)
    elif second:
        factor = g.get("second_factor", second)
        events.record("authn_mfa_success", user, actor=user, factor=factor)
    first = (authn_via or ["password"])[0]
    details: dict[str, Any] = {"factor": FACTORS.get(first, first)}
    if not devices.known_to(user) and (user.login_count or 0) > 1:
        details["new_device"] = True
    after = "afterfail" if throttling.succeeded(user) else ""
    devices.remember(user)
    events.record(f"authn_login_success{after}", user, actor=user, **details)


def _failed(_: Flask, user: BaseUser, auth_type: str, tfa: bool, **__: Any) -> None:
    factor = FACTORS.get(auth_type, auth_type)
    if tfa or sessions.HALF_SIGNED_IN in session:
        events.record("authn_mfa_fail", user, factor=factor)
    elif request.endpoint in REAUTHENTICATION:
        events.record("authn_reauth_fail", user, factor=factor)
    else:
        events.record("authn_login_fail", user, factor=factor)


def _password_changed(_: Flask, user: BaseUser, **__: Any) -> None:
    sessions.end_others(user)
    events.record("authn_password_change", user)


def _reset_requested(_: Flask, user: BaseUser, **__: Any) -> None:
    events.record("authn_reset_requested", user)


def _password_reset(_: Flask, user: BaseUser, **__: Any) -> None:
    """Also confirm the address, as the link was sent by email."""
    user.confirmed_at = user.confirmed_at or utcnow()
    sessions.end_all(user)
    tokens.revoke_all(user)
    devices.forget_others(user)
    events.record("authn_reset_completed", user, actor=user)


def _code_confirmed(_: Flask, method: str, **__: Any) -> None:
    g.second_factor = FACTORS.get(method, method)


def _app_added(_: Flask, user: BaseUser, method: str, **__: Any) -> None:
    sessions.end_others(user)
    events.record("authn_mfa_enrolled", user, factor=FACTORS.get(method, method))


def _app_removed(_: Flask, user: BaseUser, **__: Any) -> None:
    _removed(user, "totp")


def _passkey_added(_: Flask, user: BaseUser, **__: Any) -> None:
    sessions.end_others(user)
    events.record("authn_mfa_enrolled", user, factor="passkey")


def _passkey_removed(_: Flask, user: BaseUser, name: str, **__: Any) -> None:
    _removed(user, "passkey", removed=name)


def _removed(user: BaseUser, factor: str, removed: str = "") -> None:
    """Delete the recovery codes with the last second factor."""
    left = [key for key in user.webauthn if key.name != removed]
    if not left and user.sealed_totp_secret is None:
        user.mf_recovery_codes = []
    sessions.end_others(user)
    events.record("authn_mfa_removed", user, factor=factor)


def _signed_out(_: Flask, user: BaseUser, **__: Any) -> None:
    events.record("authn_logout", user, actor=user)
