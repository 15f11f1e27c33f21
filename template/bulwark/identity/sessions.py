"""The sessions of users: database rows that can be listed and ended.

`session_interface` opens and saves them for Flask.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from flask import g, session
from flask.sessions import SessionMixin
from huey import crontab
from sqlalchemy import JSON, ForeignKey, String, delete, or_, select
from sqlalchemy.orm import Mapped, mapped_column
from werkzeug.datastructures import CallbackDict

from bulwark import settings
from bulwark.audit import events
from bulwark.database import PERSONAL, SECRET, Model, UTCDateTime, db, utcnow
from bulwark.identity import devices
from bulwark.identity.models import BaseUser
from bulwark.jobs import queue

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
    def is_reauthenticated(self) -> bool:
        """Whether the user reauthenticated during this request."""
        return self.get(AUTHENTICATED_AT) != self.authenticated_at


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
