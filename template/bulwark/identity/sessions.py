"""Sessions: kept in the database, ended from anywhere; the cookie is a random token.

A visitor whom nobody knows has Flask's signed cookie, so that no page view writes to
the database. As soon as a session names a person, also one who still owes a second
factor, it becomes a row, under a new token at each step.
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

from bulwark import config, events
from bulwark.database import PERSONAL, SECRET, Model, UTCDateTime, db, utcnow
from bulwark.identity import devices
from bulwark.identity.models import BaseUser, with_roles
from bulwark.jobs import queue
from bulwark.outages import is_outage, roll_back

TOKEN_BYTES = 32
# As Flask-Login and Flask-Security say.
SIGNED_IN, HALF_SIGNED_IN, AUTHENTICATED_AT = "_user_id", "tf_user_id", "fs_paa"
HALF_SIGNED_IN_LIMIT = timedelta(minutes=10)
# How exact the last use is: a write a minute and session, not one a request.
TOUCH_AFTER = timedelta(minutes=1)


class UserSession(Model):
    """Where somebody is signed in, or has given a password and owes a second factor."""

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
        """When it ends if nobody uses it."""
        if not self.signed_in:
            return self.created_at + HALF_SIGNED_IN_LIMIT
        settings = config.current()
        return min(
            self.created_at + timedelta(hours=settings.session_hours),
            self.last_used_at + timedelta(minutes=settings.session_idle_minutes),
        )


class StoredSession(CallbackDict[str, Any], SessionMixin):
    """The session of a person, as Flask and its extensions use it."""

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
        """Whether its person has just shown once more that it is them."""
        return self.get(AUTHENTICATED_AT) != self.authenticated_at


class Sessions(SecureCookieSessionInterface):
    """Opens and saves the session of a request."""

    digest_method = staticmethod(hashlib.sha256)

    def open_session(  # type: ignore[override]
        self, app: Flask, request: Request
    ) -> SessionMixin | None:
        """Return the session that a cookie names, else an empty one."""
        token = request.cookies.get(self.get_cookie_name(app), "")
        if "Authorization" in request.headers:
            # An access token speaks for itself: no cookie may lend it anything.
            return self.session_class()
        if "." not in token:
            return (token and _load(token)) or self.session_class()
        session = super().open_session(app, request) or self.session_class()
        for name in (SIGNED_IN, HALF_SIGNED_IN):
            # Whoever has the secret key could sign one; only a row names a person.
            session.pop(name, None)
        return session

    def save_session(
        self, app: Flask, session: SessionMixin, response: Response
    ) -> None:
        """Keep the session; under a new token whenever it is worth more or less."""
        if session is None or "Authorization" in request.headers:
            return
        if "session_error" in g or g.get("database_away"):
            return  # To wait for the database once is enough; the cookie stays.
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
        """Hand the token over; without one, the session has ended meanwhile."""
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
    """Keep the sessions of people in the database."""
    app.session_interface = Sessions()
    app.login_manager.user_loader(_user)  # type: ignore[attr-defined]
    # What it compares, address and browser, both change in honest sessions.
    app.login_manager.session_protection = None  # type: ignore[attr-defined]
    user_logged_in.connect(_take_new_token, app)
    user_logged_out.connect(_leave_nothing_behind, app)
    request_started.connect(_raise_session_error, app)
    app.before_request(_record_expired)


def of(user: BaseUser) -> Sequence[UserSession]:
    """Return where somebody is signed in, the newest use first."""
    rows = db.session.scalars(
        select(UserSession)
        .where(UserSession.user_id == user.id, UserSession.signed_in)
        .order_by(UserSession.last_used_at.desc(), UserSession.id.desc())
    )
    return [row for row in rows if row.expires_at > utcnow()]


def facts(row: UserSession) -> dict[str, Any]:
    """Return what people see of a session."""
    return {
        "id": row.id,
        "device": devices.name_of(row.user_agent),
        "address": row.address,
        "signed_in_at": row.created_at,
        "last_used_at": row.last_used_at,
        "current": row.id == current_id(),
    }


def renew() -> None:
    """Give this request's session a new token; the one before is worth nothing then."""
    g.renew_session = True


def current_id() -> int | None:
    """Return the id of the session that this request came with."""
    return session.row_id if isinstance(session, StoredSession) else None


def end(user: BaseUser, session_id: int) -> bool:
    """End one session of somebody, with this transaction; tell if there was one."""
    ended = db.session.execute(
        delete(UserSession)
        .where(UserSession.user_id == user.id, UserSession.id == session_id)
        .returning(UserSession.id)
    )
    return ended.first() is not None


def end_others(user: BaseUser) -> int:
    """End all sessions of somebody but this request's; return how many people see."""
    ended = db.session.scalars(
        delete(UserSession)
        .where(UserSession.user_id == user.id, UserSession.id != (current_id() or 0))
        .returning(UserSession.signed_in)
    ).all()
    return sum(ended)


def end_all(user: BaseUser) -> int:
    """End all sessions of somebody; return how many."""
    ended = db.session.scalars(
        delete(UserSession)
        .where(UserSession.user_id == user.id)
        .returning(UserSession.signed_in)
    ).all()
    return sum(ended)


@queue.periodic_task(crontab(minute="17"), name="forget_ended_sessions")  # type: ignore[untyped-decorator]
def forget_ended() -> None:
    """Delete sessions that reached their limit, with whatever they held."""
    now, settings = utcnow(), config.current()
    idle = timedelta(minutes=settings.session_idle_minutes)
    whole = timedelta(hours=settings.session_hours)
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
    """Return what is stored of a token that has 256 random bits."""
    # Plain, for nobody guesses so many (OWASP ASVS 5.0, 11.4.1).
    return hashlib.sha256(token.encode()).hexdigest()


def find(kind: Any, token: str) -> tuple[Any, BaseUser] | None:
    """Return what a token stands for, and its person with roles, in one query."""
    person = current_app.extensions["security"].datastore.user_model
    query = (
        select(kind, person)
        .join(person, person.id == kind.user_id)
        .where(kind.token_hash == hash_of(token))
    )
    found = db.session.execute(with_roles(query, person)).unique().first()
    return (found[0], found[1]) if found else None


def _load(token: str) -> StoredSession | None:
    """Return the session that a cookie names."""
    try:
        found = find(UserSession, token)
    except SQLAlchemyError as error:
        # Flask can't handle it yet: the request has neither session nor route.
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
    """Return who is signed in, for Flask-Login, as Flask-Security's loader does."""
    if not isinstance(session, StoredSession):
        return None
    user = session.user
    if user.fs_uniquifier != uniquifier:
        return None
    set_request_attr("fs_authn_via", "session")
    set_request_attr("fs_paa", session.get(AUTHENTICATED_AT, 0))
    return user


def _record_expired() -> None:
    """Record it now that the request has its id and its route."""
    if user := g.pop("session_expired_of", None):
        events.record("session_expired", user, actor=user)


def _take_new_token(*_: object, **__: object) -> None:
    g.signed_in_now = True


def _leave_nothing_behind(*_: object, **__: object) -> None:
    """Let the browser drop what it kept of pages (OWASP ASVS 5.0, 14.3.1)."""

    @after_this_request
    def clear(response: Response) -> Response:
        response.headers["Clear-Site-Data"] = '"cache", "storage"'
        return response


def _raise_session_error(_: Flask, **__: Any) -> None:
    """Say that the service is at fault rather than that nobody is signed in.

    Before any other function: to the check of CSRF tokens the session would be empty.
    """
    if "session_error" in g and request.blueprint != "health":
        raise g.session_error


def _insert(name: str, session: SessionMixin) -> str | None:
    """Add a row for the person that the session names; return its token.

    Nobody has that name any more if the password changed meanwhile: then None.
    """
    db.session.rollback()  # A view that wanted to keep something has committed it.
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
    """Store a session under a new token; return it, or None if it was ended."""
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
    """Keep that it was used."""
    with reading_on():
        _store(row_id, session)


@contextmanager
def reading_on() -> Iterator[None]:
    """Let people read on while a disk is too full to keep that they do."""
    try:
        yield
    except SQLAlchemyError as error:
        if not is_outage(error):
            raise
        roll_back()
        events.tell("sys_database_unreachable", exc_info=True)


def _delete(row_id: int) -> None:
    db.session.rollback()
    db.session.execute(delete(UserSession).where(UserSession.id == row_id))
    db.session.commit()
