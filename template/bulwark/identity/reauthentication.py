"""Reauthentication: whoever is signed in shows again that it is them.

An account with a second factor takes it here too: a passkey alone, or the password with
a code. A password alone would let whoever learned it remove the factors.
"""

from datetime import timedelta
from typing import Any

from flask import Blueprint, Flask, current_app, flash, redirect, request, url_for
from flask.typing import ResponseReturnValue
from flask_login import current_user
from flask_security.utils import get_message
from wtforms import StringField
from wtforms.validators import DataRequired

from bulwark import limits
from bulwark.access import signed_in
from bulwark.database import db
from bulwark.errors import wants_json
from bulwark.identity import guessing
from bulwark.identity.factor_forms import CODE_LENGTH
from bulwark.identity.forms import VerifyForm
from bulwark.identity.models import BaseUser

CODES_AN_HOUR = 5  # by email, to somebody who is asked again
EMAIL = "email"

blueprint = Blueprint("reauthentication", __name__)


class ReauthenticationForm(VerifyForm):
    """Show once more that it is you: the password, with a code for who has an app."""

    code = StringField(
        "Code",
        validators=[DataRequired("Write the code.")],
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
        """Ask for all that a sign-in asks for."""
        if needs_passkey(current_user):
            self.form_errors.append(
                "Use your passkey: the password alone is not enough."
            )
            return False
        if not super().validate(**options):
            return False
        return not takes_code(current_user) or self._has_right_code()

    def _has_right_code(self) -> bool:
        user = current_user
        if refusal := guessing.count(guessing.CODE, user.email, user):
            raise refusal
        by_email = user.tf_primary_method == EMAIL
        method = "MAIL" if by_email else "AUTHENTICATOR"
        if current_app.extensions["security"].totp_factory.verify_totp(
            token=self.code.data,
            totp_secret=user.tf_totp_secret,
            user=user,
            window=current_app.config[f"SECURITY_TWO_FACTOR_{method}_VALIDITY"],
        ):
            guessing.take_back(guessing.CODE, user.email, user)
            return True
        user.track_failed_authn("code")
        self.code.errors = [get_message("TWO_FACTOR_INVALID_TOKEN")[0]]
        return False


FORMS: dict[str, Any] = {"verify_form": ReauthenticationForm}


def init_app(app: Flask) -> None:
    """Serve what the page needs besides Flask-Security's view."""
    app.register_blueprint(blueprint)
    app.add_template_global(needs_passkey)


def takes_code(user: BaseUser) -> bool:
    """Tell whether a password takes a code beside it."""
    return user.sealed_totp_secret is not None


def needs_passkey(user: BaseUser) -> bool:
    """Tell whether only a passkey shows that it is still them."""
    return bool(user.webauthn) and not takes_code(user)


@blueprint.post("/verify/code")
@signed_in
def send_code() -> ResponseReturnValue:
    """Email a code to somebody whose second factor that is."""
    if current_user.tf_primary_method == EMAIL and takes_code(current_user):
        subject, hour = str(current_user.id), timedelta(hours=1)
        if limits.count("code to verify", subject, hour).count <= CODES_AN_HOUR:
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
