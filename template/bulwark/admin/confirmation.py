"""Helpers of the administration pages: reasons, permission checks and pagination."""

from collections.abc import Callable
from typing import Any, NoReturn

from flask import (
    Blueprint,
    abort,
    flash,
    jsonify,
    redirect,
    render_template,
    request,
    url_for,
)
from flask.typing import ResponseReturnValue
from flask_login import current_user
from flask_security import forms as stock
from wtforms import StringField, SubmitField
from wtforms.validators import DataRequired, Length, Regexp

from bulwark.audit import events
from bulwark.database import db
from bulwark.identity import users
from bulwark.identity.authorization import (
    NotAllowedError,
    RefusedError,
    may_manage,
)
from bulwark.identity.models import BaseUser, Role
from bulwark.web.errors import wants_json

PAGE = 50
REASON_LENGTH = 200
FORM = ["GET", "POST"]
USER = "/users/<int(max=2147483647):user_id>"
ROLE = "/roles/<int(max=2147483647):role_id>"

blueprint = Blueprint("admin", __name__, url_prefix="/admin")
Action = Callable[..., object]


def reason_field() -> StringField:
    """Return the reason field that every action requires."""
    return StringField(
        "Reason",
        description="One line, stored in the security history. Don't include secrets"
        " or personal data.",
        validators=[
            stock.IsString(),
            DataRequired("Enter a reason."),
            Length(
                max=REASON_LENGTH, message=f"Use {REASON_LENGTH} characters at most."
            ),
            Regexp(r"^[^\x00-\x1f\x7f]*\Z", message="Enter one line of plain text."),
        ],
        render_kw={"autocomplete": "off", "maxlength": REASON_LENGTH},
    )


class ReasonForm(stock.Form):
    """A form that asks for the reason only."""

    reason = reason_field()
    submit = SubmitField()


def act_on(
    user: BaseUser, action: Action, *, title: str, text: str, button: str, done: str
) -> ResponseReturnValue:
    """Ask for the reason, act on a user, and redirect to the page of the user."""
    form = ReasonForm()
    form.submit.label.text = button
    back = url_for(".user", user_id=user.id)
    return act(form, action, title=title, text=text, done=done, back=back)


def act(
    form: Any, action: Action, *, title: str, text: str, done: str, back: str
) -> ResponseReturnValue:
    """Show a form until it is valid, then perform its action."""
    status = 400
    if form.validate_on_submit():
        by = current_user._get_current_object()
        try:
            action(by=by, reason=form.reason.data.strip())
        except NotAllowedError as error:
            _deny(str(error))
        except RefusedError as error:
            db.session.rollback()
            form.form_errors = [str(error)]
            status = 409
        else:
            db.session.commit()
            if wants_json():
                return jsonify(done=done)
            flash(done, "success")
            return redirect(back)
    if request.method == "POST" and wants_json():
        messages = [error for errors in form.errors.values() for error in errors]
        return jsonify(error=" ".join(map(str, messages))), status
    return render_template(
        "bulwark/admin/action.html", form=form, title=title, text=text, back=back
    )


def _deny(reason: str) -> NoReturn:
    db.session.rollback()
    events.record("authz_fail", current_user, action="escalation")
    abort(403, reason)


def managed(user_id: int) -> BaseUser:
    """Return a user whom the current user may manage, or respond with 403."""
    user: BaseUser = db.get_or_404(users.model(), user_id)
    if not may_manage(current_user, user.roles):
        _deny("This account has permissions that you don't have: you can only view it.")
    return user


def managed_role(role_id: int) -> Role:
    """Return a role that the current user may manage, or respond with 403."""
    role = db.get_or_404(Role, role_id)
    if not may_manage(current_user, [role]):
        _deny("This role has permissions that you don't have: you can only view it.")
    return role


def argument(name: str) -> str:
    """Return a query parameter, stripped of surrounding spaces."""
    return request.args.get(name, "").strip()


def search(*names: str) -> dict[str, str]:
    """Return the named query parameters, for links that keep the search."""
    return {name: request.args[name] for name in names if name in request.args}


def before(greatest: int) -> int:
    """Return the id that the page starts below, from the link of the previous page."""
    before = request.args.get("before", greatest, type=int)
    return max(0, min(before, greatest))
