"""Writes the session of a request to its database row, in a transaction of its own."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from flask import request
from flask.sessions import SessionMixin
from sqlalchemy import delete, select, update
from sqlalchemy.exc import SQLAlchemyError

from bulwark.audit import events
from bulwark.database import db, utcnow
from bulwark.database.outages import is_outage, roll_back
from bulwark.identity import users
from bulwark.identity.hashed_tokens import TOKEN_BYTES, hash_of
from bulwark.identity.sessions import SIGNED_IN, UserSession


def insert(name: str, session: SessionMixin) -> str | None:
    """Add a row for the user of the session; return its token.

    Return None if the user's identifier has changed, as with a new password.
    """
    db.session.rollback()  # Views commit what they want to store.
    model = users.model()
    user_id = db.session.scalar(select(model.id).where(model.fs_uniquifier == name))
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


def save(row_id: int, session: SessionMixin) -> None:
    """Save a session, and its last use."""
    db.session.rollback()
    db.session.execute(
        update(UserSession)
        .where(UserSession.id == row_id)
        .values(data=dict(session), last_used_at=utcnow(), address=request.remote_addr)
    )
    db.session.commit()


def rotate(row_id: int, session: SessionMixin) -> str | None:
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


def touch(row_id: int, session: SessionMixin) -> None:
    """Store the last use."""
    with ignore_outage():
        save(row_id, session)


def remove(row_id: int) -> None:
    """Delete a session."""
    db.session.rollback()
    db.session.execute(delete(UserSession).where(UserSession.id == row_id))
    db.session.commit()


@contextmanager
def ignore_outage() -> Iterator[None]:
    """Ignore failed writes during an outage, such as a full disk, so reading works."""
    try:
        yield
    except SQLAlchemyError as error:
        if not is_outage(error):
            raise
        roll_back()
        events.emit("sys_database_unreachable", exc_info=True)
