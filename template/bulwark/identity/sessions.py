"""Sessions, stored in the database and revocable; the cookie is a random token.

Anonymous visitors use Flask's signed cookie, so that their page views don't write to
the database. As soon as a session identifies a user, even before the second factor, it
becomes a row. Each step of the sign-in gets a new token.
"""

import hashlib
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

from flask import (
    Flask,
    Request,
    Response,
    after_this_request,
    current_app,
    g,
    request,
    request_started,
    session,
)
from flask.sessions import SecureCookieSessionInterface, SessionMixin
from flask_login import user_logged_in, user_logged_out
from flask_security.utils import set_request_attr
from huey import crontab
from sqlalchemy import JSON, ForeignKey, String, delete, or_, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Mapped, mapped_column
from werkzeug.datastructures import CallbackDict

from bulwark import settings
from bulwark.audit import events
from bulwark.database import PERSONAL, SECRET, Model, UTCDateTime, db, utcnow
from bulwark.database.outages import is_outage, roll_back
from bulwark.identity import devices
from bulwark.identity.models import BaseUser, with_roles
from bulwark.jobs import queue

TOKEN_BYTES = 32
# Session keys of Flask-Login and Flask-Security.
SIGNED_IN, HALF_SIGNED_IN, AUTHENTICATED_AT = "_user_id", "tf_user_id", "fs_paa"
HALF_SIGNED_IN_LIMIT = timedelta(minutes=10)
# The precision of the last use: at most one write a minute for each session.
TOUCH_AFTER = timedelta(minutes=1)


class UserSession(Model):
    """A session of a user who is signed in, or who has yet to pass a second factor."""

    __tablename__ = "sessions"

    id: Mapped[int] = mapped_column(primary_key=True)
    token_hash: Mapped[str] = mapped_column(String(64), unique=True, info=SECRET)
    user_id: Mapped[int] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), index=True
    )
    signed_in: Mapped[bool]
    created_at: Mapped[datetime] = mapped_column(UTCDateTime)
    last_used_at: Mapped[datetime] = mapped_column(UTCDateTime, index=True)
    address: Mapped[str | None] = mapped_column(String(64), info=PERSONAL)
    user_agent: Mapped[str | None] = mapped_column(
        String(events.USER_AGENT_LENGTH), info=PERSONAL
    )
    data: Mapped[dict[str, Any]] = mapped_column(JSON)

    @property
    def expires_at(self) -> datetime:
        """The time when the session ends without further use."""
        if not self.signed_in:
            return self.created_at + HALF_SIGNED_IN_LIMIT
        config = settings.current()
        return min(
            self.created_at + timedelta(hours=config.session_hours),
            self.last_used_at + timedelta(minutes=config.session_idle_minutes),
        )


class StoredSession(CallbackDict[str, Any], SessionMixin):
    """The session of a user, for Flask and its extensions."""

    def __init__(self, row: UserSession, user: BaseUser) -> None:
        def on_update(self: StoredSession) -> None:
            self.modified = True

        super().__init__(row.data, on_update)
        self.row_id = row.id
        self.user = user
        self.authenticated_at = row.data.get(AUTHENTICATED_AT)
        self.modified = False
        self.stale = utcnow() - row.last_used_at > TOUCH_AFTER

    @property
    def is_worth_more(self) -> bool:
        """Whether the user reauthenticated during this request."""
        return self.get(AUTHENTICATED_AT) != self.authenticated_at


class Sessions(SecureCookieSessionInterface):
    """Opens and saves the session of a request."""

    @staticmethod
    def digest_method(string: bytes = b"") -> Any:
        """Return what signs sessions: SHA-256, where Flask takes SHA-1."""
        return hashlib.sha256(string)

    def open_session(  # type: ignore[override]
        self, app: Flask, request: Request
    ) -> SessionMixin | None:
        """Return the session of the cookie, or an empty one."""
        token = request.cookies.get(self.get_cookie_name(app), "")
        if "Authorization" in request.headers:
            # A request with an access token never uses the session of a cookie.
            return self.session_class()
        if "." not in token:
            return (token and _load(token)) or self.session_class()
        session = super().open_session(app, request) or self.session_class()
        for name in (SIGNED_IN, HALF_SIGNED_IN):
            # Only a row identifies a user: anyone with the secret key could sign these.
            session.pop(name, None)
        return session

    def save_session(
        self, app: Flask, session: SessionMixin, response: Response
    ) -> None:
        """Save the session, with a new token whenever its privileges change."""
        if session is None or "Authorization" in request.headers:
            return
        if "session_error" in g or g.get("database_down"):
            return  # Don't wait for the database again; the cookie stays.
        old = session.row_id if isinstance(session, StoredSession) else None
        name = session.get(SIGNED_IN) or session.get(HALF_SIGNED_IN)
        if name and old and not g.get("signed_in_now"):
            response.vary.add("Cookie")
            if session.is_worth_more or g.get("renew_session"):  # type: ignore[attr-defined]
                self._set_cookie(app, response, _renew(old, session))
            elif session.modified:
                _store(old, session)
            elif session.stale:  # type: ignore[attr-defined]
                _touch(old, session)
            return
        if old:
            _delete(old)
            session = self.session_class(session)
            session.modified = True
        if not name:
            super().save_session(app, session, response)
            return
        response.vary.add("Cookie")
        self._set_cookie(app, response, _insert(name, session))

    def _set_cookie(self, app: Flask, response: Response, token: str | None) -> None:
        """Set the cookie; without a token, the session has ended in the meantime."""
        if token is None:
            return
        response.set_cookie(
            self.get_cookie_name(app),
            token,
            path="/",
            secure=True,
            httponly=True,
            samesite="Lax",
        )


def init_app(app: Flask) -> None:
    """Store the sessions of users in the database."""
    app.session_interface = Sessions()
    app.login_manager.user_loader(_user)  # type: ignore[attr-defined]
    # It compares the address and browser, which change in legitimate sessions, too.
    app.login_manager.session_protection = None  # type: ignore[attr-defined]
    user_logged_in.connect(_rotate_session, app)
    user_logged_out.connect(_clear_site_data, app)
    request_started.connect(_raise_session_error, app)
    app.before_request(_record_expired)


def for_user(user: BaseUser) -> Sequence[UserSession]:
    """Return the sessions of a user, most recently used first."""
    rows = db.session.scalars(
        select(UserSession)
        .where(UserSession.user_id == user.id, UserSession.signed_in)
        .order_by(UserSession.last_used_at.desc(), UserSession.id.desc())
    )
    return [row for row in rows if row.expires_at > utcnow()]


def to_dict(row: UserSession) -> dict[str, Any]:
    """Return the details of a session for display."""
    return {
        "id": row.id,
        "device": devices.name_of(row.user_agent),
        "address": row.address,
        "signed_in_at": row.created_at,
        "last_used_at": row.last_used_at,
        "current": row.id == current_id(),
    }


def renew() -> None:
    """Rotate the token of the current session, which invalidates the old one."""
    g.renew_session = True


def current_id() -> int | None:
    """Return the id of the current session."""
    return session.row_id if isinstance(session, StoredSession) else None


def end(user: BaseUser, session_id: int) -> bool:
    """End one session in the current transaction; return whether it existed."""
    ended = db.session.execute(
        delete(UserSession)
        .where(UserSession.user_id == user.id, UserSession.id == session_id)
        .returning(UserSession.id)
    )
    return ended.first() is not None


def end_others(user: BaseUser) -> int:
    """End all other sessions of a user; return how many were signed in."""
    ended = db.session.scalars(
        delete(UserSession)
        .where(UserSession.user_id == user.id, UserSession.id != (current_id() or 0))
        .returning(UserSession.signed_in)
    ).all()
    return sum(ended)


def end_all(user: BaseUser) -> int:
    """End all sessions of a user; return how many were signed in."""
    ended = db.session.scalars(
        delete(UserSession)
        .where(UserSession.user_id == user.id)
        .returning(UserSession.signed_in)
    ).all()
    return sum(ended)


@queue.periodic_task(crontab(minute="17"), name="forget_ended_sessions")  # type: ignore[untyped-decorator]
def forget_ended() -> None:
    """Delete expired sessions with their data."""
    now, config = utcnow(), settings.current()
    idle = timedelta(minutes=config.session_idle_minutes)
    whole = timedelta(hours=config.session_hours)
    db.session.execute(
        delete(UserSession).where(
            or_(
                UserSession.created_at < now - whole,
                UserSession.last_used_at < now - idle,
            )
        )
    )
    db.session.commit()


def hash_of(token: str) -> str:
    """Return the hash under which a token of 256 random bits is stored."""
    # A fast hash is enough, as no one can guess 256 bits (OWASP ASVS 5.0, 11.4.1).
    return hashlib.sha256(token.encode()).hexdigest()


def find(kind: Any, token: str) -> tuple[Any, BaseUser] | None:
    """Return the row of a token, and its user with roles, in one query."""
    person = current_app.extensions["security"].datastore.user_model
    query = (
        select(kind, person)
        .join(person, person.id == kind.user_id)
        .where(kind.token_hash == hash_of(token))
    )
    found = db.session.execute(with_roles(query, person)).unique().first()
    return (found[0], found[1]) if found else None


def _load(token: str) -> StoredSession | None:
    """Return the session with a token, if it is valid."""
    try:
        found = find(UserSession, token)
    except SQLAlchemyError as error:
        # Raised later: at this point, Flask has neither session nor route to handle it.
        g.session_error = error
        roll_back()
        return None
    if found is None:
        return None
    row, user = found
    g.session_mark = row.token_hash[:16]
    if row.expires_at <= utcnow():
        db.session.delete(row)
        g.session_expired_of = user
        return None
    return StoredSession(row, user) if user.active else None


def _user(uniquifier: str) -> BaseUser | None:
    """Return the signed-in user for Flask-Login, like Flask-Security's loader."""
    if not isinstance(session, StoredSession):
        return None
    user = session.user
    if user.fs_uniquifier != uniquifier:
        return None
    set_request_attr("fs_authn_via", "session")
    set_request_attr("fs_paa", session.get(AUTHENTICATED_AT, 0))
    return user


def _record_expired() -> None:
    """Record an expired session, once the request has its id and route."""
    if user := g.pop("session_expired_of", None):
        events.record("session_expired", user, actor=user)


def _rotate_session(*_: object, **__: object) -> None:
    g.signed_in_now = True


def _clear_site_data(*_: object, **__: object) -> None:
    """Make the browser delete cached pages and storage (OWASP ASVS 5.0, 14.3.1)."""

    @after_this_request
    def clear(response: Response) -> Response:
        response.headers["Clear-Site-Data"] = '"cache", "storage"'
        return response


def _raise_session_error(_: Flask, **__: Any) -> None:
    """Raise the database error, instead of treating the user as signed out.

    It must run before all other functions: CSRF validation would see an empty session.
    """
    if "session_error" in g and request.blueprint != "health":
        raise g.session_error


def _insert(name: str, session: SessionMixin) -> str | None:
    """Add a row for the user of the session; return its token.

    Return None if the user's identifier has changed, as with a new password.
    """
    db.session.rollback()  # Views commit what they want to store.
    person = current_app.extensions["security"].datastore.user_model
    user_id = db.session.scalar(select(person.id).where(person.fs_uniquifier == name))
    if user_id is None:
        return None
    token, now = secrets.token_urlsafe(TOKEN_BYTES), utcnow()
    row = UserSession(
        token_hash=hash_of(token),
        user_id=user_id,
        signed_in=SIGNED_IN in session,
        created_at=now,
        last_used_at=now,
        address=request.remote_addr,
        user_agent=request.user_agent.string[: events.USER_AGENT_LENGTH] or None,
        data=dict(session),
    )
    db.session.add(row)
    db.session.commit()
    return token


def _store(row_id: int, session: SessionMixin) -> None:
    db.session.rollback()
    db.session.execute(
        update(UserSession)
        .where(UserSession.id == row_id)
        .values(data=dict(session), last_used_at=utcnow(), address=request.remote_addr)
    )
    db.session.commit()


def _renew(row_id: int, session: SessionMixin) -> str | None:
    """Save a session with a new token; return it, or None if the session has ended."""
    db.session.rollback()
    token = secrets.token_urlsafe(TOKEN_BYTES)
    renewed = db.session.scalar(
        update(UserSession)
        .where(UserSession.id == row_id)
        .values(
            token_hash=hash_of(token),
            data=dict(session),
            last_used_at=utcnow(),
            address=request.remote_addr,
        )
        .returning(UserSession.id)
    )
    db.session.commit()
    return token if renewed else None


def _touch(row_id: int, session: SessionMixin) -> None:
    """Store the last use."""
    with reading_on():
        _store(row_id, session)


@contextmanager
def reading_on() -> Iterator[None]:
    """Ignore failed writes during an outage, such as a full disk, so reading works."""
    try:
        yield
    except SQLAlchemyError as error:
        if not is_outage(error):
            raise
        roll_back()
        events.emit("sys_database_unreachable", exc_info=True)


def _delete(row_id: int) -> None:
    db.session.rollback()
    db.session.execute(delete(UserSession).where(UserSession.id == row_id))
    db.session.commit()
