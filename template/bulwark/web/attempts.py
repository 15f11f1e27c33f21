"""Attempts to guess a secret, counted in the database for each of their targets.

All processes share the counts, and restarts keep them.
"""

import hmac
import math
from dataclasses import dataclass
from datetime import datetime, timedelta

from huey import crontab
from sqlalchemy import String, case, delete, or_, update
from sqlalchemy.orm import Mapped, mapped_column

from bulwark import settings
from bulwark.database import Model, UTCDateTime, db, utcnow
from bulwark.database.upserts import upsert
from bulwark.jobs import queue

CLOCK_SKEW = timedelta(minutes=1)  # between two servers; NTP keeps them much closer


class Guess(Model):
    """The number of attempts within a time window."""

    __tablename__ = "guesses"

    # A keyed hash of the subject, which may be an address that has no account.
    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    count: Mapped[int]
    expires_at: Mapped[datetime] = mapped_column(UTCDateTime, index=True)


@dataclass(frozen=True)
class Tally:
    """The number of attempts, including this one, and when the window ends."""

    count: int
    expires_at: datetime

    @property
    def seconds_left(self) -> int:
        """Whole seconds until the window ends, at least one."""
        return max(1, math.ceil((self.expires_at - utcnow()).total_seconds()))


def count(kind: str, subject: str, window: timedelta) -> Tally:
    """Count an attempt and return how many there were. Concurrent ones all count.

    The window begins with the first attempt. The count is committed immediately, so the
    current transaction must not have changed anything yet.

    Args:
        kind: the kind of attempt, such as `password`.
        subject: its target, such as an address or an id; only a keyed hash is stored.
        window: how long attempts count.
    """
    now = utcnow()
    ends_at = now + window
    # A window that ends later than it could began while the clock was wrong.
    over = or_(Guess.expires_at <= now, Guess.expires_at > ends_at + CLOCK_SKEW)
    statement = upsert(
        Guess,
        {"key": _key(kind, subject), "count": 1, "expires_at": ends_at},
        key=[Guess.key],
        changes={
            "count": case((over, 1), else_=Guess.count + 1),
            "expires_at": case((over, ends_at), else_=Guess.expires_at),
        },
    )
    found = db.session.execute(
        statement.returning(Guess.count, Guess.expires_at),
        execution_options={"populate_existing": True},
    ).one()
    db.session.commit()
    return Tally(*found)


def undo(kind: str, subject: str) -> None:
    """Subtract an attempt immediately: it was correct, or was not checked."""
    db.session.execute(
        update(Guess)
        .where(Guess.key == _key(kind, subject), Guess.count > 0)
        .values(count=Guess.count - 1)
        .execution_options(synchronize_session=False)
    )
    db.session.commit()


def forget(*attempts: tuple[str, str]) -> int:
    """Forget attempts, given as kind and subject; return how many there were.

    Unlike the other functions, this is part of the current transaction.
    """
    keys = [_key(kind, subject) for kind, subject in attempts]
    forgotten = delete(Guess).where(Guess.key.in_(keys)).returning(Guess.count)
    return sum(db.session.scalars(forgotten).all())


@queue.periodic_task(crontab(minute="23"), name="forget_old_guesses")  # type: ignore[untyped-decorator]
def forget_old() -> None:
    """Delete the windows that have ended."""
    db.session.execute(delete(Guess).where(Guess.expires_at <= utcnow()))
    db.session.commit()


def _key(kind: str, subject: str) -> str:
    key = settings.current().secret_key.encode()
    return hmac.digest(key, f"guess:{kind}:{subject}".encode(), "sha256").hex()
