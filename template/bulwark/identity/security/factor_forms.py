"""The forms of second factors, and the messages about them."""

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

MESSAGES = {
    f"SECURITY_MSG_{name}": message
    for name, message in {
        "CODE_HAS_BEEN_SENT": ("We sent you an email with a code.", "info"),
        "FAILED_TO_SEND_CODE": (
            "We couldn't send the email with the code. Try again in a minute.",
            "error",
        ),
        "INVALID_INPUT": ("Don't use characters such as < and >.", "error"),
        "INVALID_INPUT_LENGTH": ("Use %(length)s characters at most.", "error"),
        "INVALID_RECOVERY_CODE": (
            "This is not one of your recovery codes, or it was already used.",
            "error",
        ),
        "NO_RECOVERY_CODES_SETUP": ("You have no recovery codes yet.", "info"),
        "TWO_FACTOR_CHANGE_METHOD_SUCCESSFUL": (
            "Codes are set up. From now on, you need a code to sign in.",
            "success",
        ),
        "TWO_FACTOR_DISABLED": ("Your authenticator app was removed.", "success"),
        "TWO_FACTOR_INVALID_TOKEN": (
            "This code is incorrect, expired or already used. Wait for the next code,"
            " then enter that one.",
            "error",
        ),
        "TWO_FACTOR_LOGIN_SUCCESSFUL": ("You are signed in.", "success"),
        "TWO_FACTOR_METHOD_NOT_AVAILABLE": (
            "This option is not available. If your account requires a second factor,"
            " add a passkey before you remove the app.",
            "error",
        ),
        "TWO_FACTOR_PERMISSION_DENIED": (
            "This step has expired. Please sign in again.",
            "error",
        ),
        "TWO_FACTOR_SETUP_EXPIRED": (
            "This took longer than %(within)s. Please start over.",
            "error",
        ),
        "WEBAUTHN_CREDENTIAL_DELETED": (
            "The passkey “%(name)s” was removed. Delete it on your device too, so that"
            " it is no longer offered.",
            "success",
        ),
        "WEBAUTHN_CREDENTIAL_ID_INUSE": ("This passkey was already added.", "error"),
        "WEBAUTHN_EXPIRED": (
            "This took longer than %(within)s. Please try again.",
            "error",
        ),
        "WEBAUTHN_MISMATCH_USER_HANDLE": (
            "This passkey belongs to another account.",
            "error",
        ),
        "WEBAUTHN_NAME_DISALLOWED_CHARACTERS": (
            "Use letters, digits, spaces and punctuation.",
            "error",
        ),
        "WEBAUTHN_NAME_INUSE": (
            "You already have a passkey called “%(name)s”.",
            "error",
        ),
        "WEBAUTHN_NAME_NOT_FOUND": ("You have no passkey called “%(name)s”.", "error"),
        "WEBAUTHN_NAME_REQUIRED": ("Enter a name.", "error"),
        "WEBAUTHN_NO_VERIFY": (
            "We couldn't verify the passkey. Please try again.",
            "error",
        ),
        "WEBAUTHN_REGISTER_SUCCESSFUL": (
            "The passkey “%(name)s” was added. You can sign in with it alone.",
            "success",
        ),
        "WEBAUTHN_UNKNOWN_CREDENTIAL_ID": (
            "This passkey is not registered here. It may have been removed. Sign in"
            " another way.",
            "error",
        ),
    }.items()
}
