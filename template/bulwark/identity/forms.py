"""Flask-Security's forms in plain words, each new password typed once, none remembered.

The forms keep Flask-Security's checks; labels, hints and what password managers need
are ours. `templates/bulwark/forms.html` shows them.
"""

from datetime import timedelta
from typing import Any

from flask import current_app, url_for
from flask_login import current_user
from flask_security import forms as stock
from flask_security.utils import get_message
from sqlalchemy import update
from wtforms import EmailField, PasswordField, SubmitField

from bulwark import config, events, limits
from bulwark.database import db
from bulwark.identity import guessing

RESET_LINK_WORKS = timedelta(hours=1)
RESET_MAILS = 5  # to one address, while a link works


class NewPasswordField(PasswordField):  # type: ignore[misc]
    """A password to be made up, with a hint on how to make a good one."""

    def __init__(self, **options: Any) -> None:
        least = config.current().password_min_length
        options["description"] = (
            f"{least} characters or more. A few words that don't belong together are"
            " easy to remember and hard to guess."
        )
        super().__init__(**options)


def _datastore() -> Any:
    return current_app.extensions["security"].datastore


def _find(email: str) -> Any:
    return _datastore().find_user(email=email)


def _reworded(cls: type, field: Any, label: str, autocomplete: str) -> Any:
    return cls(
        label=label,
        validators=field.kwargs["validators"],
        render_kw={"autocomplete": autocomplete},
    )


def _email(field: Any, label: str = "E-mail address") -> Any:
    """Reword the address that names an account, to password managers too."""
    return _reworded(EmailField, field, label, "username")


def _password(field: Any, label: str = "Password") -> Any:
    return _reworded(PasswordField, field, label, "current-password")


def _new_password(field: Any, label: str = "Password") -> Any:
    return _reworded(NewPasswordField, field, label, "new-password")


class SignInForm(stock.LoginForm):
    """Sign in, for this browser session only."""

    # Where browsers offer passkeys too.
    email = _reworded(
        EmailField, stock.LoginForm.email, "E-mail address", "username webauthn"
    )
    password = _password(stock.LoginForm.password)
    remember = None
    submit = SubmitField("Sign in")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Flask-Security's link to the forgotten password; the page has its own.
        self.password.description = ""

    def validate(self, **options: Any) -> bool:
        """Count the try, then do as much for an unknown address as for a known one."""
        if not stock.Form.validate(self, **options):
            return False
        email, user = self.email.data, _find(self.email.data)
        if not guessing.may_try(self, email, user):
            return False
        valid = bool(super().validate(**options))
        if valid:
            guessing.take_back(guessing.PASSWORD, email, user)
            # Else Flask-Security leads from the second step back to this page.
            self.next.data = self.next.data or url_for("account.index")
        elif self.user is None or self.user_authenticated:
            # An unknown address, or a locked account: Flask-Security signals neither.
            events.record("authn_login_fail", self.user, factor="password")
        return valid


class ForgotPasswordForm(stock.ForgotPasswordForm):
    """Ask for the mail with which a new password is set.

    Each address is sent one, as at the sign-up. Who has no account reads that there;
    neither the answer nor the time it takes tells it to anybody else.
    """

    email = _email(stock.LoginForm.email)
    submit = SubmitField("Send the mail")

    def validate(self, **options: Any) -> bool:
        """Find whom to write to; after some mails, nobody."""
        if not stock.Form.validate(self, **options):
            return False
        email = self.email.data
        # Their links are as good as another one, for as long.
        mails = limits.count("reset", email, RESET_LINK_WORKS)
        # After the count: what it commits, would be read anew of a known one only.
        self.user = _find(email) or _datastore().user_model(email=email)
        return mails.count <= RESET_MAILS


class ResetPasswordForm(stock.ResetPasswordForm):
    """Set a new password, with the link from that mail."""

    password = _new_password(stock.ResetPasswordForm.password, "New password")
    password_confirm = None
    submit = SubmitField("Set the password")

    def validate(self, **options: Any) -> bool:
        """Hold the link until the commit: of many at once, one finds it unused."""
        if self.user is None or not super().validate(**options):
            return False
        person = _datastore().user_model
        held = db.session.execute(
            update(person)
            .where(
                person.id == self.user.id,
                person.fs_uniquifier == self.user.fs_uniquifier,
                person.active,
            )
            .values(fs_uniquifier=person.fs_uniquifier)
            .returning(person.id)
            .execution_options(synchronize_session=False)
        )
        if held.first():
            return True
        self.form_errors.append(get_message("INVALID_RESET_PASSWORD_TOKEN")[0])
        return False


class VerifyForm(stock.VerifyForm):
    """Show once more that it is you."""

    password = _password(stock.VerifyForm.password)
    submit = SubmitField("Go on")

    def validate(self, **options: Any) -> bool:
        """Count the try: a session that was left open is no way to guess either."""
        if not guessing.may_try(self, current_user.email, current_user):
            return False
        valid = bool(super().validate(**options))
        if valid:
            guessing.take_back(guessing.PASSWORD, current_user.email, current_user)
        return valid


class ChangePasswordForm(stock.ChangePasswordForm):
    """Change the password, knowing the current one."""

    # With the checks of the other form: this one's own takes what is no text.
    password = _password(stock.VerifyForm.password, "Current password")
    new_password = _new_password(stock.ChangePasswordForm.new_password, "New password")
    new_password_confirm = None
    submit = SubmitField("Change the password")

    def validate(self, **options: Any) -> bool:
        """Count the try at the current password."""
        if not guessing.may_try(self, current_user.email, current_user):
            return False
        valid = bool(super().validate(**options))
        if get_message("INVALID_PASSWORD")[0] in self.password.errors:
            events.record("authn_password_change_fail", current_user)
        else:
            guessing.take_back(guessing.PASSWORD, current_user.email, current_user)
        return valid


FORMS: dict[str, Any] = {
    "login_form": SignInForm,
    "forgot_password_form": ForgotPasswordForm,
    "reset_password_form": ResetPasswordForm,
    "change_password_form": ChangePasswordForm,
}

# What Flask-Security says, by its names. An answer to somebody who is not signed in is
# the same whether an account exists or not.
MESSAGES = {
    f"SECURITY_MSG_{name}": message
    for name, message in {
        "ANONYMOUS_USER_REQUIRED": ("You are signed in already.", "info"),
        "API_ERROR": ("This can't be used any more. Start again here.", "error"),
        "EMAIL_NOT_PROVIDED": ("Write your e-mail address.", "error"),
        "GENERIC_AUTHN_FAILED": (
            "Check the address and the password.",
            "error",
        ),
        "INVALID_EMAIL_ADDRESS": ("Write an address like name@example.com.", "error"),
        "INVALID_PASSWORD": ("This is not your password. Try again.", "error"),
        "INVALID_REDIRECT": (
            "The link that led here wanted to go on to a place outside this service."
            " That is not allowed, so you stay here.",
            "error",
        ),
        "INVALID_RESET_PASSWORD_TOKEN": (
            "The link is not complete, or was used already. We can send a new one.",
            "error",
        ),
        "PASSWORD_CHANGE": (
            "Your password is changed. You are signed out everywhere else.",
            "success",
        ),
        "PASSWORD_IS_THE_SAME": ("This is your password already.", "error"),
        "PASSWORD_NOT_PROVIDED": ("Write a password.", "error"),
        "PASSWORD_RESET_EXPIRED": (
            "The link was too old: it works for %(within)s. We can send a new one.",
            "error",
        ),
        "PASSWORD_RESET_NO_LOGIN": (
            "Your new password is set. Sign in with it.",
            "success",
        ),
        "PASSWORD_RESET_REQUEST": (
            "If %(email)s has an account, a mail with a link is on its way. No mail?"
            " Look among the spam, and at the spelling of the address.",
            "success",
        ),
        "REAUTHENTICATION_REQUIRED": (
            "Before you go on, please show once more that it is you.",
            "info",
        ),
        "REAUTHENTICATION_SUCCESSFUL": ("Thank you. You can go on.", "success"),
        "UNAUTHENTICATED": ("Please sign in first.", "info"),
        "UNAUTHORIZED": ("You may not do this.", "error"),
    }.items()
}
