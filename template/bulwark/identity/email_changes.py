"""Changes of an email address: request, confirmation at the new address, and stop.

The emailed link only opens a page. To confirm, the user must be signed in and submit
the form there, so neither a mail scanner nor access to the mailbox is enough. Whatever
ends sessions also cancels the change: a new password, a lock, another change.
"""

import secrets
import uuid
from datetime import datetime, timedelta
from typing import Any

from flask import (
    Blueprint,
    Flask,
    current_app,
    flash,
    jsonify,
    redirect,
    render_template,
    request,
    session,
    url_for,
)
from flask.typing import ResponseReturnValue
from flask_login import current_user
from flask_security import forms as stock
from flask_security.utils import base_render_json
from huey import crontab
from sqlalchemy import ForeignKey, String, delete, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Mapped, mapped_column
from werkzeug.datastructures import MultiDict
from wtforms import EmailField, SubmitField

from bulwark import mail, settings
from bulwark.audit import events
from bulwark.database import PERSONAL, SECRET, Model, UTCDateTime, db, utcnow
from bulwark.identity import notifications, sessions
from bulwark.identity.models import EMAIL_LENGTH, BaseUser
from bulwark.jobs import queue
from bulwark.web import attempts, errors
from bulwark.web.access import public, recent, signed_in
from bulwark.web.errors import wants_json

TOKEN_BYTES = 32
LINK_WORKS = timedelta(hours=1)
# Within `LINK_WORKS`: emails to one address from all users, requests by one account.
EMAILS, REQUESTS = 5, 5
ENDED = (
    "The link was already used, is expired or incomplete, or belongs to another"
    " account. Request a new one here."
)

blueprint = Blueprint("addresses", __name__)


class AddressChange(Model):
    """A change that awaits confirmation, one per account."""

    __tablename__ = "address_changes"

    user_id: Mapped[int] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), primary_key=True
    )
    email: Mapped[str] = mapped_column(String(EMAIL_LENGTH), info=PERSONAL)
    token_hash: Mapped[str] = mapped_column(String(64), unique=True, info=SECRET)
    stop_token_hash: Mapped[str] = mapped_column(String(64), unique=True, info=SECRET)
    # A hash of `fs_uniquifier`: when that changes, the change is void.
    state_hash: Mapped[str] = mapped_column(String(64), info=SECRET)
    expires_at: Mapped[datetime] = mapped_column(UTCDateTime, index=True)


class ChangeAddressForm(stock.Form):
    """The form that requests a change of address."""

    email = EmailField(
        "New email address",
        validators=[
            stock.IsString(),
            stock.email_required,
            stock.EmailValidation(verify=True),
        ],
        render_kw={"autocomplete": "email", "maxlength": EMAIL_LENGTH},
    )
    submit = SubmitField("Send confirmation email")

    def validate(self, **options: Any) -> bool:
        """Reject the current address, and too many requests by one account."""
        if not super().validate(**options):
            return False
        if self.email.data == current_user.email:
            self.email.errors = ["This is already your email address."]
            return False
        made = attempts.count("address change", str(current_user.id), LINK_WORKS)
        if made.count > REQUESTS:
            wait = errors.humanize(made.seconds_left)
            self.form_errors.append(f"Too many requests. Try again in {wait}.")
            return False
        return True


class AnswerForm(stock.Form):
    """The form that confirms or stops a change."""

    submit = SubmitField()


def init_app(app: Flask) -> None:
    """Register the pages; the first two replace those of Flask-Security."""
    for rule, name, view in (
        ("/change-email", "change_email", change_email),
        ("/change-email/<token>", "change_email_confirm", confirm),
    ):
        app.add_url_rule(rule, f"security.{name}", view, methods=["GET", "POST"])
    app.register_blueprint(blueprint)


@signed_in
@recent
def change_email() -> ResponseReturnValue:
    """Ask for the new address, and email it a link."""
    form = ChangeAddressForm(formdata=_sent())
    if form.validate_on_submit():
        _request(current_user, form.email.data)
        if not wants_json():
            flash(
                f"We sent an email to {form.email.data}. Open the link in it to confirm"
                " the change. Until then, your address stays the same.",
                "success",
            )
    email = current_user.email
    if wants_json():
        form.user = current_user
        return base_render_json(form, additional={"current_email": email})
    return render_template(
        "security/change_email.html", change_email_form=form, current_email=email
    )


@signed_in
@recent
def confirm(token: str) -> ResponseReturnValue:
    """Show the change, and apply it when the form is submitted."""
    waiting = _waiting(current_user, token)
    if waiting is None:
        return _answer(ENDED, "error", "security.change_email")
    form = AnswerForm(formdata=_sent())
    if form.validate_on_submit():
        if not _change(current_user, waiting):
            return _answer(ENDED, "error", "security.change_email")
        return _answer("Your email address was changed.", "success", "account.index")
    return render_template(
        "bulwark/confirm_address.html", form=form, email=waiting.email
    )


@blueprint.route("/change-email/stop/<token>", methods=["GET", "POST"])
@public
def stop(token: str) -> ResponseReturnValue:
    """Let the owner of the old address stop a change that they did not request."""
    hashed = sessions.hash_of(token)
    mine = AddressChange.stop_token_hash == hashed, AddressChange.expires_at > utcnow()
    waiting = db.session.scalar(select(AddressChange).where(*mine))
    if waiting is None:
        return render_template("bulwark/stop_address.html", admin=_admin()), 404
    form = AnswerForm(formdata=_sent())
    if not form.validate_on_submit():
        return render_template("bulwark/stop_address.html", form=form, admin=_admin())
    user: BaseUser = db.session.get_one(_person(), waiting.user_id)
    db.session.delete(waiting)
    ended = sessions.end_all(user)
    events.record("user_email_change_stopped", user, ended=ended)
    db.session.commit()
    done = "The change was stopped and all devices are signed out. Set a new password."
    return _answer(done, "success", "security.forgot_password")


@queue.periodic_task(crontab(minute="29"), name="forget_address_changes")  # type: ignore[untyped-decorator]
def forget_old() -> None:
    """Delete expired changes."""
    db.session.execute(
        delete(AddressChange).where(AddressChange.expires_at <= utcnow())
    )
    db.session.commit()


def _request(user: BaseUser, email: str) -> None:
    """Email the link, and notify the old address. A taken address takes as long."""
    if attempts.count("address change to", email, LINK_WORKS).count > EMAILS:
        return  # The earlier link still works.
    token, stop_token = (secrets.token_urlsafe(TOKEN_BYTES) for _ in range(2))
    db.session.execute(delete(AddressChange).where(AddressChange.user_id == user.id))
    db.session.add(
        AddressChange(
            user_id=user.id,
            email=email,
            token_hash=sessions.hash_of(token),
            stop_token_hash=sessions.hash_of(stop_token),
            state_hash=sessions.hash_of(user.fs_uniquifier),
            expires_at=utcnow() + LINK_WORKS,
        )
    )
    notifications.send(
        events.record("user_email_change_requested", user),
        user.email,
        link=mail.link("addresses.stop", token=stop_token),
        new_address=email,
    )
    link = mail.link("security.change_email_confirm", token=token)
    name, taken = settings.current().name, _find(email)
    text = render_template(
        f"security/email/change_email_{'taken' if taken else 'instructions'}.txt",
        link=link,
        within="1 hour",
        user=user,
    )
    subject = f"Your address at {name}" if taken else f"Confirm your address at {name}"
    mail.send(subject, email, text)
    db.session.commit()


def _waiting(user: BaseUser, token: str) -> AddressChange | None:
    """Return the change that a link confirms, if it is valid for this account."""
    return db.session.scalar(
        select(AddressChange).where(
            AddressChange.token_hash == sessions.hash_of(token),
            AddressChange.user_id == user.id,
            AddressChange.state_hash == sessions.hash_of(user.fs_uniquifier),
            AddressChange.expires_at > utcnow(),
        )
    )


def _change(user: BaseUser, waiting: AddressChange) -> bool:
    """Change the address if it is free and the account unchanged; notify both.

    A new `fs_uniquifier` invalidates earlier links to set a password, and all other
    sessions. The current session continues.
    """
    old, person, named = user.email, _person(), uuid.uuid4().hex
    taken = delete(AddressChange).where(AddressChange.token_hash == waiting.token_hash)
    changed = (
        update(person)
        .where(
            person.id == user.id,
            person.fs_uniquifier == user.fs_uniquifier,
            person.active,
        )
        .values(email=waiting.email, confirmed_at=utcnow(), fs_uniquifier=named)
        .execution_options(synchronize_session=False)
    )
    try:
        # Of several concurrent requests, only one finds the row.
        done = db.session.scalar(taken.returning(AddressChange.user_id)) is not None
        done = done and db.session.scalar(changed.returning(person.id)) is not None
    except IntegrityError:  # The address has an account by now.
        done = False
    if not done:
        db.session.rollback()
        return False
    db.session.refresh(user)
    session[sessions.SIGNED_IN] = named
    sessions.renew()
    sessions.end_others(user)
    notifications.send(events.record("user_email_changed", user), old)
    db.session.commit()
    return True


def _answer(message: str, category: str, endpoint: str) -> ResponseReturnValue:
    if wants_json():
        failed = category == "error"
        key = "error" if failed else "message"
        return jsonify({key: message}), 400 if failed else 200
    flash(message, category)
    return redirect(url_for(endpoint))


def _sent() -> MultiDict[str, Any] | None:
    """Return the submitted form or JSON data."""
    if request.method != "POST":
        return None
    return MultiDict(request.get_json()) if request.is_json else request.form


def _admin() -> str:
    return settings.current().admin_email


def _person() -> Any:
    return current_app.extensions["security"].datastore.user_model


def _find(email: str) -> Any:
    return current_app.extensions["security"].datastore.find_user(email=email)
