"""The forms of second factors in plain words, and what is said about factors."""

from typing import Any

from flask import current_app
from flask_login import current_user
from flask_security import forms as stock
from flask_security.recovery_codes import MfRecoveryCodesForm, MfRecoveryForm
from wtforms import RadioField, StringField, SubmitField

from bulwark.identity.guessing import CODE, RECOVERY_CODE, CountsGuesses

METHODS = {"authenticator": "Authenticator app", "email": "Code by e-mail"}
CODE_LENGTH = 7  # six digits, and the space that apps show between them


class SetupForm(stock.TwoFactorSetupForm):
    """Begin with an authenticator app, or remove it."""

    # Flask-Security checks it against what is allowed.
    setup = RadioField(
        "How do you want to get codes?", default="authenticator", validate_choice=False
    )
    submit = SubmitField("Go on")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        enabled = current_app.config["SECURITY_TWO_FACTOR_ENABLED_METHODS"]
        self.setup.choices = [(method, METHODS[method]) for method in enabled]


class CodeForm(CountsGuesses, stock.TwoFactorVerifyCodeForm):
    """Type a code, to sign in or to show that the app is set up."""

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
    submit = SubmitField("Go on")


class RecoveryForm(CountsGuesses, MfRecoveryForm):
    """Sign in with a recovery code."""

    secret = RECOVERY_CODE
    code = StringField(
        "Recovery code",
        description="26 letters and digits, 16 in older ones. Each code works once.",
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
    """Make recovery codes."""

    def validate(self, **options: Any) -> bool:
        """Make none for somebody without the factor that they stand in for."""
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
        "CODE_HAS_BEEN_SENT": ("We sent you a mail with a code.", "info"),
        "FAILED_TO_SEND_CODE": (
            "The mail with the code could not be sent. Try again in a minute.",
            "error",
        ),
        "INVALID_INPUT": ("Leave out signs such as < and >.", "error"),
        "INVALID_INPUT_LENGTH": ("Use %(length)s characters at most.", "error"),
        "INVALID_RECOVERY_CODE": (
            "This is not one of your recovery codes, or it was used already.",
            "error",
        ),
        "NO_RECOVERY_CODES_SETUP": ("You have no recovery codes yet.", "info"),
        "TWO_FACTOR_CHANGE_METHOD_SUCCESSFUL": (
            "That worked. From now on signing in asks for a code.",
            "success",
        ),
        "TWO_FACTOR_DISABLED": ("Your authenticator app is removed.", "success"),
        "TWO_FACTOR_INVALID_TOKEN": (
            "This code is not right, too old, or used already. Wait until the app"
            " shows the next one, and type that.",
            "error",
        ),
        "TWO_FACTOR_LOGIN_SUCCESSFUL": ("You are signed in.", "success"),
        "TWO_FACTOR_METHOD_NOT_AVAILABLE": (
            "You can't choose this. If you want to remove the app and your account"
            " needs a second factor, add a passkey first.",
            "error",
        ),
        "TWO_FACTOR_PERMISSION_DENIED": (
            "That step is over, or took too long. Please sign in again.",
            "error",
        ),
        "TWO_FACTOR_SETUP_EXPIRED": (
            "That took longer than %(within)s. Please start again.",
            "error",
        ),
        "WEBAUTHN_CREDENTIAL_DELETED": (
            "The passkey “%(name)s” is removed. Delete it on its device too, so that"
            " it is not offered any more.",
            "success",
        ),
        "WEBAUTHN_CREDENTIAL_ID_INUSE": ("This passkey is here already.", "error"),
        "WEBAUTHN_EXPIRED": (
            "That took longer than %(within)s. Please try again.",
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
            "You have a passkey called “%(name)s” already.",
            "error",
        ),
        "WEBAUTHN_NAME_NOT_FOUND": ("You have no passkey “%(name)s”.", "error"),
        "WEBAUTHN_NAME_REQUIRED": ("Give it a name.", "error"),
        "WEBAUTHN_NO_VERIFY": (
            "The passkey could not be checked. Please try again.",
            "error",
        ),
        "WEBAUTHN_REGISTER_SUCCESSFUL": (
            "The passkey “%(name)s” is added. You can sign in with it alone.",
            "success",
        ),
        "WEBAUTHN_UNKNOWN_CREDENTIAL_ID": (
            "No account here knows this passkey. Was it removed? Sign in another way.",
            "error",
        ),
    }.items()
}
