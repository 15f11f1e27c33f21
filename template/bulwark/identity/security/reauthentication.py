"""Reauthentication: signed-in users confirm their identity.

Accounts with a second factor require it here, too: a passkey alone, or the password
with a code. Otherwise, anyone who learned the password could remove the factors.
"""

from datetime import timedelta
from typing import Any

from flask import Blueprint, Flask, current_app, flash, redirect, request, url_for
from flask.typing import ResponseReturnValue
from flask_login import current_user
from flask_security.utils import get_message
from wtforms import StringField
from wtforms.validators import DataRequired

from bulwark.database import db
from bulwark.identity import throttling
from bulwark.identity.models import BaseUser
from bulwark.identity.security.factor_forms import CODE_LENGTH
from bulwark.identity.security.forms import VerifyForm
from bulwark.web import attempts
from bulwark.web.access import signed_in
from bulwark.web.errors import wants_json

CODES_AN_HOUR = 5  # by email, for reauthentication
EMAIL = "email"

blueprint = Blueprint("reauthentication", __name__)


class ReauthenticationForm(VerifyForm):
    """Confirm your identity: with the password, and a code if the account has codes."""

    code = StringField(
        "Code",
        validators=[DataRequired("Enter the code.")],
        render_kw={
            "autocomplete": "one-time-code",
            "inputmode": "numeric",
            "pattern": "[0-9 ]*",
            "maxlength": CODE_LENGTH,
        },
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not takes_code(current_user):
            del self.code

    def validate(self, **options: Any) -> bool:
        """Require the same factors as a sign-in."""
        if needs_passkey(current_user):
            self.form_errors.append(
                "Use your passkey: your password alone is not enough."
            )
            return False
        if not super().validate(**options):
            return False
        return not takes_code(current_user) or self._has_right_code()

    def _has_right_code(self) -> bool:
        user = current_user
        if refusal := throttling.count(throttling.CODE, user.email, user):
            raise refusal
        by_email = user.tf_primary_method == EMAIL
        method = "MAIL" if by_email else "AUTHENTICATOR"
        if current_app.extensions["security"].totp_factory.verify_totp(
            token=self.code.data,
            totp_secret=user.tf_totp_secret,
            user=user,
            window=current_app.config[f"SECURITY_TWO_FACTOR_{method}_VALIDITY"],
        ):
            throttling.undo(throttling.CODE, user.email, user)
            return True
        user.track_failed_authn("code")
        self.code.errors = [get_message("TWO_FACTOR_INVALID_TOKEN")[0]]
        return False


FORMS: dict[str, Any] = {"verify_form": ReauthenticationForm}


def init_app(app: Flask) -> None:
    """Register the view that emails codes, and a helper for the template."""
    app.register_blueprint(blueprint)
    app.add_template_global(needs_passkey)


def takes_code(user: BaseUser) -> bool:
    """Return whether the password requires a code, too."""
    return user.sealed_totp_secret is not None


def needs_passkey(user: BaseUser) -> bool:
    """Return whether only a passkey can confirm the identity of the user."""
    return bool(user.webauthn) and not takes_code(user)


@blueprint.post("/verify/code")
@signed_in
def send_code() -> ResponseReturnValue:
    """Email a code, if that is the second factor of the user."""
    if current_user.tf_primary_method == EMAIL and takes_code(current_user):
        subject, hour = str(current_user.id), timedelta(hours=1)
        if attempts.count("code to verify", subject, hour).count <= CODES_AN_HOUR:
            current_user.tf_send_security_token(
                method=EMAIL,
                totp_secret=current_user.tf_totp_secret,
                phone_number=None,
            )
            db.session.commit()
    if wants_json():
        return {}
    flash(*get_message("CODE_HAS_BEEN_SENT"))
    wanted = request.form.get("next") or None
    return redirect(url_for("security.verify", next=wanted))
