"""The forms of second factors."""

from typing import Any

from flask import current_app
from flask_login import current_user
from flask_security import forms as stock
from flask_security.recovery_codes import MfRecoveryCodesForm, MfRecoveryForm
from wtforms import RadioField, StringField, SubmitField

from bulwark.identity.throttling import CODE, RECOVERY_CODE, CountsGuesses

METHODS = {"authenticator": "Authenticator app", "email": "Code by email"}
CODE_LENGTH = 7  # six digits, and the space that apps display in the middle


class SetupForm(stock.TwoFactorSetupForm):
    """Start the set-up of an authenticator app, or remove it."""

    # Flask-Security validates the choice.
    setup = RadioField(
        "How do you want to get codes?", default="authenticator", validate_choice=False
    )
    submit = SubmitField("Continue")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        enabled = current_app.config["SECURITY_TWO_FACTOR_ENABLED_METHODS"]
        self.setup.choices = [(method, METHODS[method]) for method in enabled]


class CodeForm(CountsGuesses, stock.TwoFactorVerifyCodeForm):
    """Enter a code, to sign in or to confirm the set-up of an app."""

    secret = CODE
    code = StringField(
        "Code",
        validators=stock.CodeFormMixin.code.kwargs["validators"],
        render_kw={
            "autocomplete": "one-time-code",
            "inputmode": "numeric",
            "pattern": "[0-9 ]*",
            "maxlength": CODE_LENGTH,
            "autofocus": True,
        },
    )
    submit = SubmitField("Continue")


class RecoveryForm(CountsGuesses, MfRecoveryForm):
    """Sign in with a recovery code."""

    secret = RECOVERY_CODE
    code = StringField(
        "Recovery code",
        description="26 letters and digits (older codes: 16). Each code works once.",
        validators=MfRecoveryForm.code.kwargs["validators"],
        render_kw={
            "autocomplete": "off",
            "autocapitalize": "none",
            "spellcheck": "false",
            "autofocus": True,
        },
    )
    submit = SubmitField("Sign in")


class RecoveryCodesForm(MfRecoveryCodesForm):
    """Generate recovery codes."""

    def validate(self, **options: Any) -> bool:
        """Reject users without a second factor, for which the codes are a fallback."""
        if not super().validate(**options):
            return False
        if not current_user.has_second_factor:
            self.form_errors.append("Set up a passkey or an authenticator app first.")
            return False
        return True


FORMS: dict[str, Any] = {
    "two_factor_setup_form": SetupForm,
    "two_factor_verify_code_form": CodeForm,
    "mf_recovery_form": RecoveryForm,
    "mf_recovery_codes_form": RecoveryCodesForm,
}
