"""Flask-Security's forms with our labels, without password repeats or "remember me".

The forms keep Flask-Security's validation; labels, hints and attributes for password
managers are ours. `templates/bulwark/forms.html` renders them.
"""

from datetime import timedelta
from typing import Any

from flask import url_for
from flask_login import current_user
from flask_security import forms as stock
from flask_security.utils import get_message
from wtforms import EmailField, PasswordField, SubmitField

from bulwark import settings
from bulwark.audit import events
from bulwark.identity import throttling, users
from bulwark.web import attempts

RESET_LINK_WORKS = timedelta(hours=1)
RESET_MAILS = 5  # to one address, within the lifetime of a link


class NewPasswordField(PasswordField):  # type: ignore[misc]
    """A field for a new password, with a hint on how to choose a good one."""

    def __init__(self, **options: Any) -> None:
        least = settings.current().password_min_length
        options["description"] = (
            f"{least} characters or more. A few unrelated words are easy to remember"
            " and hard to guess."
        )
        super().__init__(**options)


def _reworded(cls: type, field: Any, label: str, autocomplete: str) -> Any:
    return cls(
        label=label,
        validators=field.kwargs["validators"],
        render_kw={"autocomplete": autocomplete},
    )


def _email(field: Any, label: str = "Email address") -> Any:
    """Return the email field, marked as the username for password managers."""
    return _reworded(EmailField, field, label, "username")


def _password(field: Any, label: str = "Password") -> Any:
    return _reworded(PasswordField, field, label, "current-password")


def _new_password(field: Any, label: str = "Password") -> Any:
    return _reworded(NewPasswordField, field, label, "new-password")


class SignInForm(stock.LoginForm):
    """Sign in, for this browser session only."""

    # Browsers also offer passkeys in this field.
    email = _reworded(
        EmailField, stock.LoginForm.email, "Email address", "username webauthn"
    )
    password = _password(stock.LoginForm.password)
    remember = None
    submit = SubmitField("Sign in")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Flask-Security's link to reset the password; the page has its own.
        self.password.description = ""

    def validate(self, **options: Any) -> bool:
        """Count the attempt, then take the same time whether the address is known."""
        if not stock.Form.validate(self, **options):
            return False
        email, user = self.email.data, users.find(self.email.data)
        if not throttling.may_try(self, email, user):
            return False
        valid = bool(super().validate(**options))
        if valid:
            throttling.undo(throttling.PASSWORD, email, user)
            # Otherwise Flask-Security redirects from the second step back to this page.
            self.next.data = self.next.data or url_for("account.index")
        elif self.user is None or self.user_authenticated:
            # Flask-Security sends no signal for unknown addresses and locked accounts.
            events.record("authn_login_fail", self.user, factor="password")
        return valid


class ForgotPasswordForm(stock.ForgotPasswordForm):
    """Request an email with a link to set a new password.

    As with sign-up, every address gets an email. If there is no account, only that
    email reveals it. The response and its timing are the same in both cases.
    """

    email = _email(stock.LoginForm.email)
    submit = SubmitField("Send link")

    def validate(self, **options: Any) -> bool:
        """Find the recipient; reject too many requests for one address."""
        if not stock.Form.validate(self, **options):
            return False
        email = self.email.data
        # The links already sent work just as long.
        mails = attempts.count("reset", email, RESET_LINK_WORKS)
        # After the count: its commit would expire a known user, which takes time.
        self.user = users.find(email) or users.model()(email=email)
        return mails.count <= RESET_MAILS


class ResetPasswordForm(stock.ResetPasswordForm):
    """Set a new password, with the emailed link."""

    password = _new_password(stock.ResetPasswordForm.password, "New password")
    password_confirm = None
    submit = SubmitField("Set password")

    def validate(self, **options: Any) -> bool:
        """Lock the user's row until the commit, so that the link works only once."""
        if self.user is None or not super().validate(**options):
            return False
        if users.hold(self.user.fs_uniquifier):
            return True
        self.form_errors.append(get_message("INVALID_RESET_PASSWORD_TOKEN")[0])
        return False


class VerifyForm(stock.VerifyForm):
    """Confirm your identity with the password."""

    password = _password(stock.VerifyForm.password)
    submit = SubmitField("Continue")

    def validate(self, **options: Any) -> bool:
        """Count the attempt, so that an open session can't be used to guess."""
        if not throttling.may_try(self, current_user.email, current_user):
            return False
        valid = bool(super().validate(**options))
        if valid:
            throttling.undo(throttling.PASSWORD, current_user.email, current_user)
        return valid


class ChangePasswordForm(stock.ChangePasswordForm):
    """Change the password, after entering the current one."""

    # With the validators of the other form, as the stock field accepts non-text values.
    password = _password(stock.VerifyForm.password, "Current password")
    new_password = _new_password(stock.ChangePasswordForm.new_password, "New password")
    new_password_confirm = None
    submit = SubmitField("Change password")

    def validate(self, **options: Any) -> bool:
        """Count the attempt at the current password."""
        if not throttling.may_try(self, current_user.email, current_user):
            return False
        valid = bool(super().validate(**options))
        if get_message("INVALID_PASSWORD")[0] in self.password.errors:
            events.record("authn_password_change_fail", current_user)
        else:
            throttling.undo(throttling.PASSWORD, current_user.email, current_user)
        return valid


FORMS: dict[str, Any] = {
    "login_form": SignInForm,
    "forgot_password_form": ForgotPasswordForm,
    "reset_password_form": ResetPasswordForm,
    "change_password_form": ChangePasswordForm,
}
