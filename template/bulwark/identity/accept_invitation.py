"""The page where an invited user chooses a password and fills in the team's fields.

It is at the URL of a password reset, as it was before invitations had a page of their
own: a link to reset the password of an invited user opens it, too.
"""

from datetime import timedelta

from flask import Flask, flash, redirect, render_template, url_for
from flask.typing import ResponseReturnValue
from flask_security.recoverable import update_password
from flask_security.utils import (
    base_render_json,
    check_and_get_token_status,
    get_message,
)

from bulwark.database import db
from bulwark.identity import new_accounts, profile, sign_up_options, terms, users
from bulwark.identity.form_data import submitted
from bulwark.identity.models import BaseUser
from bulwark.identity.profile import ProfileForm
from bulwark.web.errors import wants_json

ENDPOINT = "security.reset_password"


def init_app(app: Flask) -> None:
    """Serve invited users before Flask-Security's view."""
    reset_password = app.view_functions[ENDPOINT]

    def choose_password(token: str) -> ResponseReturnValue:
        user = _invited(token)
        if user is not None:
            return _accept(user)
        return reset_password(token=token)  # type: ignore[return-value]

    app.view_functions[ENDPOINT] = choose_password


def _invited(token: str) -> BaseUser | None:
    """Return the user whose invitation has this token, if it still works."""
    within = timedelta(hours=sign_up_options.current().invitation_hours)
    expired, invalid, data = check_and_get_token_status(token, "reset", within)
    if expired or invalid or not data:
        return None
    user: BaseUser | None = users.datastore().find_user(fs_uniquifier=data[0])  # type: ignore[assignment]
    return user if user is not None and user.is_invited and user.active else None


def _accept(user: BaseUser) -> ResponseReturnValue:
    form = new_accounts.form_for(user.email, "Set password", submitted(), obj=user)
    if not form.validate_on_submit() or not _complete(user, form):
        if wants_json():
            return base_render_json(form, include_user=False)
        return render_template(
            "security/accept_invitation.html", form=form, email=user.email
        )
    if wants_json():
        return base_render_json(form, include_user=False)
    flash(*get_message("PASSWORD_RESET_NO_LOGIN"))
    return redirect(url_for("security.login"))


def _complete(user: BaseUser, form: ProfileForm) -> bool:
    """Set the password; return whether no other request did so meanwhile."""
    if not users.hold(user.fs_uniquifier):
        form.form_errors.append(get_message("INVALID_RESET_PASSWORD_TOKEN")[0])
        return False
    update_password(user, form["password"].data)  # type: ignore[no-untyped-call]
    profile.fill(user, form)
    terms.accept(user)
    db.session.commit()
    return True
