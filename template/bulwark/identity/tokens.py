"""Personal access tokens: what a script shows instead of a session.

A token opens routes that ask for a permission, and only those that it was given and
that its owner has at that moment. Everywhere else it counts for nothing.
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

from bulwark import access, events, limits, origins
from bulwark.access import recent, signed_in
from bulwark.database import SECRET, Model, UTCDateTime, db, utcnow
from bulwark.errors import wants_json
from bulwark.identity import sessions
from bulwark.identity.models import BaseUser, permissions_of
from bulwark.jobs import queue

PREFIX = "bwk_"  # By it, scanners for leaked secrets know a token.
TOKEN_BYTES = 32
TOKEN = re.compile(PREFIX + r"[\w-]{43}", re.ASCII)
NAME_LENGTH = 64
DAYS = ("1", "7", "30", "90", "365")
# How exact the last use is: a write a minute and token, not one a request.
TOUCH_AFTER = timedelta(minutes=1)
LISTED = timedelta(days=90)  # how long a token that has ended is still shown

blueprint = Blueprint("tokens", __name__, url_prefix="/account/tokens")


class AccessToken(Model):
    """A token of somebody: a hash of it, and what it may do of what they may."""

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
        """Why it is good for nothing any more; "" while it is good."""
        if self.revoked_at:
            return "revoked"
        return "expired" if self.expires_at <= utcnow() else ""


class TokenForm(stock.Form):
    """Make a token."""

    name = StringField(
        "Name",
        description="What it is for, such as “Nightly report”.",
        filters=[lambda typed: typed.strip() if isinstance(typed, str) else typed],
        validators=[
            stock.IsString(),
            DataRequired("Give it a name, so that you know it again."),
            Length(max=NAME_LENGTH, message=f"Use {NAME_LENGTH} characters at most."),
        ],
        render_kw={"autocomplete": "off", "maxlength": NAME_LENGTH},
    )
    permissions = SelectMultipleField(
        "What it may do", widget=ListWidget(), option_widget=CheckboxInput()
    )
    days = SelectField("Days until it expires", choices=DAYS, default="30")
    submit = SubmitField("Make the token")

    def __init__(self, formdata: MultiDict[str, Any] | None) -> None:
        super().__init__(formdata)
        meanings = current_app.extensions["permissions"]
        self.permissions.choices = [
            (name, f"{meanings[name]} ({name})") for name in _grantable()
        ]

    def validate_name(self, field: StringField) -> None:
        """Refuse what nobody can see, and no database takes."""
        if not field.data.isprintable():
            raise ValidationError("Use letters, digits and signs.")

    def validate_permissions(self, field: SelectMultipleField) -> None:
        """Ask for one; a browser would take `required` to mean each of them."""
        if not field.data:
            raise ValidationError("Choose at least one.")


class CSRF(CSRFProtect):  # type: ignore[misc]
    """Asks for a CSRF token, unless an access token must speak for the request.

    A browser sends no access token of its own accord, and a request that shows one has
    no session: without a good one it is nobody's.
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
    """Serve the page, and let tokens in."""
    app.register_blueprint(blueprint)
    app.login_manager.request_loader(_owner)  # type: ignore[attr-defined]


def of(user: BaseUser) -> Sequence[AccessToken]:
    """Return somebody's tokens, the newest first."""
    return db.session.scalars(
        select(AccessToken)
        .where(AccessToken.user_id == user.id)
        .order_by(AccessToken.id.desc())
    ).all()


def make(
    user: BaseUser, name: str, permissions: Sequence[str], days: int
) -> tuple[str, AccessToken]:
    """Make a token, with this transaction; return it, this once, and its row."""
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
    """Revoke one of somebody's tokens, with this transaction."""
    revoked = db.session.execute(
        _revocation(user).where(AccessToken.id == token_id).returning(AccessToken.id)
    )
    if revoked.first():
        events.record("authn_token_revoked", user, token_id=token_id)


def revoke_all(user: BaseUser) -> None:
    """Revoke somebody's tokens, as part of an action that is recorded itself."""
    db.session.execute(_revocation(user))


def challenge() -> ResponseReturnValue:
    """Answer a script that is nobody's; an ended token is recorded (RFC 6750, 3)."""
    ended = g.pop("ended_token", None)
    if ended:
        owner, token_id, reason = ended
        # Once an hour: a script that was forgotten would fill the table.
        if limits.count("token reuse", str(token_id), timedelta(hours=1)).count == 1:
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
    """List somebody's tokens and make one, which is shown this once."""
    form = TokenForm(_sent())
    text = None
    if form.validate_on_submit():
        days = int(form.days.data)
        text, token = make(current_user, form.name.data, form.permissions.data, days)
        db.session.commit()
        if wants_json():
            return jsonify(token=text, **_facts(token)), 201
    elif form.errors and wants_json():
        return jsonify(error="That did not work", fields=form.errors), 400
    tokens = of(current_user)
    if wants_json():
        facts = [_facts(token) for token in tokens]
        return jsonify(tokens=facts, grantable=_grantable(), days=list(map(int, DAYS)))
    return render_template("bulwark/tokens.html", form=form, made=text, tokens=tokens)


@blueprint.post("/<int(max=2147483647):token_id>/revoke")
@signed_in
def end(token_id: int) -> ResponseReturnValue:
    """Revoke one of somebody's own tokens."""
    if all(token.id != token_id for token in of(current_user)):
        abort(404)
    revoke(current_user, token_id)
    if wants_json():
        return jsonify(revoked=token_id)
    flash("That token is revoked. A program that has it is out.", "success")
    return redirect(url_for(".index"))


@queue.periodic_task(crontab(hour="3", minute="43"), name="forget_ended_tokens")  # type: ignore[untyped-decorator]
def forget_ended() -> None:
    """Delete tokens that ended long ago."""
    long_ago = utcnow() - LISTED
    db.session.execute(
        delete(AccessToken).where(
            or_(AccessToken.expires_at < long_ago, AccessToken.revoked_at < long_ago)
        )
    )
    db.session.commit()


def _is_shown() -> bool:
    """Tell whether the request shows a token where one counts."""
    shown = request.authorization
    if shown is None or shown.type != "bearer" or request.endpoint is None:
        return False
    return access.of(current_app, request.endpoint) != access.PUBLIC


def _owner(request: Request) -> BaseUser | None:
    """Return in whose name a request speaks, with their roles, in one query."""
    if not _is_shown():
        return None
    shown = request.authorization and request.authorization.token
    if not shown or not TOKEN.fullmatch(shown):
        return None
    try:
        found = sessions.find(AccessToken, shown)
    except SQLAlchemyError:
        g._login_user = AnonymousUserMixin()  # so that nobody looks again
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
    """Return what somebody may let a token do: what they may do themselves."""
    known = current_app.extensions["permissions"]
    return sorted(permissions_of(current_user.roles) & known.keys())


def _sent() -> MultiDict[str, Any] | None:
    """Return what was sent, as a form or as JSON."""
    if request.method != "POST":
        return None
    return MultiDict(request.get_json()) if request.is_json else request.form


def _facts(token: AccessToken) -> dict[str, Any]:
    moments = ("created_at", "expires_at", "last_used_at", "revoked_at")
    return {
        "id": token.id,
        "name": token.name,
        "permissions": token.permissions,
        **{m: (at := getattr(token, m)) and at.isoformat() for m in moments},
    }
