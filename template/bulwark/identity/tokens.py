"""Personal access tokens, which scripts send instead of a session cookie.

A token is only valid on routes that require a permission. The token must include the
permission, and its owner must have it at the time of the request.
"""

import re
import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from flask import (
    Blueprint,
    Flask,
    Request,
    abort,
    current_app,
    flash,
    g,
    jsonify,
    redirect,
    render_template,
    request,
    url_for,
)
from flask.typing import ResponseReturnValue
from flask_login import AnonymousUserMixin, current_user
from flask_security import forms as stock
from flask_wtf.csrf import CSRFProtect
from huey import crontab
from sqlalchemy import JSON, ForeignKey, String, delete, or_, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Mapped, mapped_column
from werkzeug.datastructures import MultiDict
from wtforms import (
    SelectField,
    SelectMultipleField,
    StringField,
    SubmitField,
    ValidationError,
)
from wtforms.validators import DataRequired, Length
from wtforms.widgets import CheckboxInput, ListWidget

from bulwark.audit import events
from bulwark.database import SECRET, Model, UTCDateTime, db, utcnow
from bulwark.identity import sessions
from bulwark.identity.models import BaseUser, permissions_of
from bulwark.jobs import queue
from bulwark.web import access, attempts, origins
from bulwark.web.access import recent, signed_in
from bulwark.web.errors import wants_json

PREFIX = "bwk_"  # Lets secret scanners recognize tokens.
TOKEN_BYTES = 32
TOKEN = re.compile(PREFIX + r"[\w-]{43}", re.ASCII)
NAME_LENGTH = 64
DAYS = ("1", "7", "30", "90", "365")
# The precision of the last use: at most one write a minute for each token.
TOUCH_AFTER = timedelta(minutes=1)
LISTED = timedelta(days=90)  # how long expired and revoked tokens are listed

blueprint = Blueprint("tokens", __name__, url_prefix="/account/tokens")


class AccessToken(Model):
    """A token of a user: its hash, and the permissions that it includes."""

    __tablename__ = "access_tokens"

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), index=True
    )
    name: Mapped[str] = mapped_column(String(NAME_LENGTH))
    token_hash: Mapped[str] = mapped_column(String(64), unique=True, info=SECRET)
    permissions: Mapped[list[str]] = mapped_column(JSON)
    created_at: Mapped[datetime] = mapped_column(UTCDateTime)
    expires_at: Mapped[datetime] = mapped_column(UTCDateTime)
    last_used_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    revoked_at: Mapped[datetime | None] = mapped_column(UTCDateTime)

    @property
    def ended(self) -> str:
        """Why the token is no longer valid; "" while it is."""
        if self.revoked_at:
            return "revoked"
        return "expired" if self.expires_at <= utcnow() else ""


class TokenForm(stock.Form):
    """The form that creates a token."""

    name = StringField(
        "Name",
        description="What it is for, such as “Nightly report”.",
        filters=[lambda typed: typed.strip() if isinstance(typed, str) else typed],
        validators=[
            stock.IsString(),
            DataRequired("Enter a name, so that you can recognize it later."),
            Length(max=NAME_LENGTH, message=f"Use {NAME_LENGTH} characters at most."),
        ],
        render_kw={"autocomplete": "off", "maxlength": NAME_LENGTH},
    )
    permissions = SelectMultipleField(
        "Permissions", widget=ListWidget(), option_widget=CheckboxInput()
    )
    days = SelectField("Days until it expires", choices=DAYS, default="30")
    submit = SubmitField("Create token")

    def __init__(self, formdata: MultiDict[str, Any] | None) -> None:
        super().__init__(formdata)
        meanings = current_app.extensions["permissions"]
        self.permissions.choices = [
            (name, f"{meanings[name]} ({name})") for name in _grantable()
        ]

    def validate_name(self, field: StringField) -> None:
        """Reject non-printable characters."""
        if not field.data.isprintable():
            raise ValidationError("Use letters, digits and symbols.")

    def validate_permissions(self, field: SelectMultipleField) -> None:
        """Require one; browsers would apply `required` to each checkbox."""
        if not field.data:
            raise ValidationError("Choose at least one.")


class CSRF(CSRFProtect):  # type: ignore[misc]
    """Requires a CSRF token, except for requests with an access token.

    A browser never sends an access token by itself, and a request with one has no
    session: if the token is invalid, the request is anonymous.
    """

    def protect(self, apply_exemptions: bool = False) -> None:
        """Check the request."""
        if _is_shown():
            g.csrf_valid = True
        else:
            super().protect(apply_exemptions)
            if g.get("csrf_valid"):
                origins.check()


def init_app(app: Flask) -> None:
    """Register the pages, and authenticate requests by token."""
    app.register_blueprint(blueprint)
    app.login_manager.request_loader(_owner)  # type: ignore[attr-defined]


def for_user(user: BaseUser) -> Sequence[AccessToken]:
    """Return the tokens of a user, newest first."""
    return db.session.scalars(
        select(AccessToken)
        .where(AccessToken.user_id == user.id)
        .order_by(AccessToken.id.desc())
    ).all()


def make(
    user: BaseUser, name: str, permissions: Sequence[str], days: int
) -> tuple[str, AccessToken]:
    """Create a token in the current transaction; return it, only once, and its row."""
    text, now = PREFIX + secrets.token_urlsafe(TOKEN_BYTES), utcnow()
    token = AccessToken(
        user_id=user.id,
        name=name,
        token_hash=sessions.hash_of(text),
        permissions=sorted(permissions),
        created_at=now,
        expires_at=now + timedelta(days=days),
    )
    db.session.add(token)
    db.session.flush()
    events.record(
        "authn_token_created",
        user,
        token_id=token.id,
        permissions=token.permissions,
        days=days,
    )
    return text, token


def revoke(user: BaseUser, token_id: int) -> None:
    """Revoke a token of a user in the current transaction."""
    revoked = db.session.execute(
        _revocation(user).where(AccessToken.id == token_id).returning(AccessToken.id)
    )
    if revoked.first():
        events.record("authn_token_revoked", user, token_id=token_id)


def revoke_all(user: BaseUser) -> None:
    """Revoke all tokens of a user, as part of an action that records its own event."""
    db.session.execute(_revocation(user))


def challenge() -> ResponseReturnValue:
    """Respond with 401 (RFC 6750, 3), and record the use of an ended token."""
    ended = g.pop("ended_token", None)
    if ended:
        owner, token_id, reason = ended
        # Once an hour: a forgotten script would fill the table.
        if attempts.count("token reuse", str(token_id), timedelta(hours=1)).count == 1:
            events.record("authn_token_reuse", owner, reason=reason, token_id=token_id)
    if _is_shown():
        error, hint = "This access token is not valid", 'Bearer error="invalid_token"'
    else:
        error, hint = "Please sign in", "Bearer"
    return jsonify(error=error), 401, {"WWW-Authenticate": hint}


@blueprint.route("", methods=["GET", "POST"])
@signed_in
@recent
def index() -> ResponseReturnValue:
    """List the user's tokens, or create one, which is shown only once."""
    form = TokenForm(_sent())
    text = None
    if form.validate_on_submit():
        days = int(form.days.data)
        text, token = make(current_user, form.name.data, form.permissions.data, days)
        db.session.commit()
        if wants_json():
            return jsonify(token=text, **_to_dict(token)), 201
    elif form.errors and wants_json():
        return jsonify(error="That did not work", fields=form.errors), 400
    tokens = for_user(current_user)
    if wants_json():
        facts = [_to_dict(token) for token in tokens]
        return jsonify(tokens=facts, grantable=_grantable(), days=list(map(int, DAYS)))
    return render_template("bulwark/tokens.html", form=form, made=text, tokens=tokens)


@blueprint.post("/<int(max=2147483647):token_id>/revoke")
@signed_in
def end(token_id: int) -> ResponseReturnValue:
    """Revoke one of the user's own tokens."""
    if all(token.id != token_id for token in for_user(current_user)):
        abort(404)
    revoke(current_user, token_id)
    if wants_json():
        return jsonify(revoked=token_id)
    flash("The token was revoked. Programs can no longer use it.", "success")
    return redirect(url_for(".index"))


@queue.periodic_task(crontab(hour="3", minute="43"), name="forget_ended_tokens")  # type: ignore[untyped-decorator]
def forget_ended() -> None:
    """Delete tokens that expired or were revoked long ago."""
    long_ago = utcnow() - LISTED
    db.session.execute(
        delete(AccessToken).where(
            or_(AccessToken.expires_at < long_ago, AccessToken.revoked_at < long_ago)
        )
    )
    db.session.commit()


def _is_shown() -> bool:
    """Return whether the request has a bearer token on a route that accepts one."""
    shown = request.authorization
    if shown is None or shown.type != "bearer" or request.endpoint is None:
        return False
    return access.declared_for(current_app, request.endpoint) != access.PUBLIC


def _owner(request: Request) -> BaseUser | None:
    """Return the owner of the request's token with their roles, in one query."""
    if not _is_shown():
        return None
    shown = request.authorization and request.authorization.token
    if not shown or not TOKEN.fullmatch(shown):
        return None
    try:
        found = sessions.find(AccessToken, shown)
    except SQLAlchemyError:
        g._login_user = AnonymousUserMixin()  # so that the user is not loaded again
        raise
    if found is None:
        return None
    token, owner = found
    reason = token.ended or ("" if owner.active else "its owner is locked")
    if reason:
        g.ended_token = owner, token.id, reason
        return None
    g.session_mark = f"token {token.id}"
    owner.token_permissions = frozenset(token.permissions)
    _touch(token)
    return owner


def _touch(token: AccessToken) -> None:
    now = utcnow()
    if token.last_used_at and now - token.last_used_at <= TOUCH_AFTER:
        return
    token.last_used_at = now
    with sessions.reading_on():
        db.session.commit()


def _revocation(user: BaseUser) -> Any:
    return (
        update(AccessToken)
        .where(AccessToken.user_id == user.id, AccessToken.revoked_at.is_(None))
        .values(revoked_at=utcnow())
    )


def _grantable() -> list[str]:
    """Return the permissions that a user may grant to a token: their own."""
    known = current_app.extensions["permissions"]
    return sorted(permissions_of(current_user.roles) & known.keys())


def _sent() -> MultiDict[str, Any] | None:
    """Return the submitted form or JSON data."""
    if request.method != "POST":
        return None
    return MultiDict(request.get_json()) if request.is_json else request.form


def _to_dict(token: AccessToken) -> dict[str, Any]:
    moments = ("created_at", "expires_at", "last_used_at", "revoked_at")
    return {
        "id": token.id,
        "name": token.name,
        "permissions": token.permissions,
        **{m: (at := getattr(token, m)) and at.isoformat() for m in moments},
    }
