"""Limits: how often one address may ask, and how often one secret may be guessed at.

Guesses are counted in the database, so that all processes see them and no restart
forgets them.
"""

import hmac
from dataclasses import dataclass
from datetime import datetime, timedelta

from huey import crontab
from sqlalchemy import String, case, delete
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Mapped, mapped_column

from bulwark import config
from bulwark.database import Model, UTCDateTime, db, utcnow
from bulwark.jobs import queue


class Guess(Model):
    """How often something was tried, in a window that ends."""

    __tablename__ = "guesses"

    # A keyed hash of what was tried: it may be an address that has no account.
    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    count: Mapped[int]
    expires_at: Mapped[datetime] = mapped_column(UTCDateTime, index=True)


@dataclass(frozen=True)
class Tally:
    """How often something was tried, this time included, and when that is forgotten."""

    count: int
    expires_at: datetime

    @property
    def minutes_left(self) -> int:
        """Whole minutes until it is forgotten, at least one."""
        seconds = (self.expires_at - utcnow()).total_seconds()
        return max(1, -int(-seconds // 60))


def count(kind: str, subject: str, window: timedelta) -> Tally:
    """Count a try and return how many there were; of many at once, each is counted.

    The window begins with the first try. It is kept at once, whatever becomes of the
    current transaction, which must not have changed anything yet.

    Args:
        kind: what is tried, such as `password`.
        subject: whose, such as an address or an id; only a keyed hash is stored.
        window: how long tries are remembered.
    """
    now = utcnow()
    dialect = postgresql if db.engine.dialect.name == "postgresql" else sqlite
    over = Guess.expires_at <= now
    add = dialect.insert(Guess).values(
        key=_key(kind, subject), count=1, expires_at=now + window
    )
    found = db.session.execute(
        add.on_conflict_do_update(
            index_elements=[Guess.key],
            set_={
                "count": case((over, 1), else_=Guess.count + 1),
                "expires_at": case((over, now + window), else_=Guess.expires_at),
            },
        ).returning(Guess.count, Guess.expires_at),
        execution_options={"populate_existing": True},
    ).one()
    db.session.commit()
    return Tally(*found)


def forget(kind: str, subject: str) -> None:
    """Forget all tries, with the current transaction: one was right."""
    db.session.execute(delete(Guess).where(Guess.key == _key(kind, subject)))


@queue.periodic_task(crontab(minute="23"), name="forget_old_guesses")  # type: ignore[untyped-decorator]
def forget_old() -> None:
    """Delete the windows that are over."""
    db.session.execute(delete(Guess).where(Guess.expires_at <= utcnow()))
    db.session.commit()


def _key(kind: str, subject: str) -> str:
    key = config.current().secret_key.encode()
    return hmac.digest(key, f"guess:{kind}:{subject}".encode(), "sha256").hex()
