"""Flask-Security's forms in plain words, and without its "remember me"."""

from typing import Any

from flask_security.forms import (
    ChangePasswordForm,
    LoginForm,
    RegisterFormV2,
    ResetPasswordForm,
)


class SignInForm(LoginForm):  # type: ignore[misc]
    """Sign in for this browser session only."""

    remember = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.password.description = ""


FORMS = {"login_form": SignInForm}
