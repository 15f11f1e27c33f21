"""Personal access tokens, which scripts send instead of a session cookie.

A token includes permissions of its owner. `token_authentication` accepts it.
"""

import re
import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from huey import crontab
from sqlalchemy import JSON, ForeignKey, String, delete, or_, select, update
from sqlalchemy.orm import Mapped, mapped_column

from bulwark.audit import events
from bulwark.database import SECRET, Model, UTCDateTime, db, utcnow
from bulwark.identity.hashed_tokens import TOKEN_BYTES, hash_of
from bulwark.identity.models import BaseUser
from bulwark.jobs import queue

PREFIX = "bwk_"  # Lets secret scanners recognize tokens.
TOKEN = re.compile(PREFIX + r"[\w-]{43}", re.ASCII)
NAME_LENGTH = 64
LISTED = timedelta(days=90)  # how long expired and revoked tokens are listed


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
        token_hash=hash_of(text),
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


def _revocation(user: BaseUser) -> Any:
    return (
        update(AccessToken)
        .where(AccessToken.user_id == user.id, AccessToken.revoked_at.is_(None))
        .values(revoked_at=utcnow())
    )
