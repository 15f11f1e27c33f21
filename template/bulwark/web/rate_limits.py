"""Rate limits: requests of a network, and attempts to guess a secret.

Requests are counted in Redis, or in each process if there is no Redis or it is down.
Guesses are counted in the database: all processes share them, and restarts keep them.

@blueprint.post("/prices")
@public
@limit("10 per minute")
def ask(): ...
"""

import hmac
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

from flask import Flask, Response, current_app, request
from flask_limiter import Limiter, RequestLimit
from huey import crontab
from limits.storage import MemoryStorage, RedisStorage, Storage
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisAwayError
from redis.exceptions import RedisError
from redis.retry import Retry
from sqlalchemy import String, case, delete, or_, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Mapped, mapped_column
from werkzeug.exceptions import TooManyRequests

from bulwark import settings
from bulwark.audit import events
from bulwark.database import Model, UTCDateTime, db, utcnow
from bulwark.jobs import queue
from bulwark.network import network_of
from bulwark.observability.logging import log
from bulwark.web import errors

T = TypeVar("T")

# A working Redis responds within a millisecond; clients don't wait for a slow one.
REDIS_TIMEOUT = 0.25  # seconds
REDIS_PAUSE = 5  # seconds until a connection is retried
REDIS_OUTAGE = timedelta(hours=1)  # how long processes treat it as the same outage
CLOCKS_DIFFER = timedelta(minutes=1)  # of two servers; NTP keeps them much closer


def network() -> str:
    """Return the network that the request came from, which a limit applies to."""
    return network_of(request.remote_addr or "unknown")


class Counters(Storage):
    """Counts in Redis, or in this process while Redis is not available."""

    STORAGE_SCHEME = ["bulwark"]  # noqa: RUF012  as its base declares it
    base_exceptions = RedisError

    def __init__(self, uri: str, redis_url: str = "", **options: Any) -> None:
        super().__init__(uri)
        self._own = MemoryStorage()
        self._redis: RedisStorage | None = None
        self._ask_again_at = 0.0
        self._away = False
        if redis_url:
            # Retries once without a delay, for a connection that was closed meanwhile.
            again = Retry(NoBackoff(), 1, supported_errors=(RedisAwayError,))
            self._redis = RedisStorage(
                redis_url,
                socket_connect_timeout=REDIS_TIMEOUT,
                socket_timeout=REDIS_TIMEOUT,
                retry=again,  # type: ignore[arg-type]
                **options,
            )

    def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        """Count, and return how many there are in this window."""
        return self._ask(lambda store: store.incr(key, int(expiry), amount))

    def get(self, key: str) -> int:
        """Return how many there are in this window."""
        return self._ask(lambda store: store.get(key))

    def get_expiry(self, key: str) -> float:
        """Return when the window ends, in seconds since 1970."""
        return self._ask(lambda store: store.get_expiry(key))

    def clear(self, key: str) -> None:
        """Forget one window."""
        self._ask(lambda store: store.clear(key))

    def check(self) -> bool:
        """Return whether counts are where they should be; counting always works."""
        return self._redis is None or bool(self._redis.check())

    def reset(self) -> int | None:
        """Forget all windows."""
        return self._ask(lambda store: store.reset())

    def _ask(self, question: Callable[[RedisStorage | MemoryStorage], T]) -> T:
        if self._redis and time.monotonic() >= self._ask_again_at:
            if self._away:
                # One request checks whether Redis is back; the others need not wait.
                self._ask_again_at = time.monotonic() + REDIS_PAUSE
            try:
                answer = question(self._redis)
            except RedisError as error:
                self._lose(error)
            else:
                self._find()
                return answer
        return question(self._own)

    def _lose(self, error: RedisError) -> None:
        self._ask_again_at = time.monotonic() + REDIS_PAUSE
        if self._away:
            return
        self._away = True
        # The count in the database shows which process noticed first.
        if count("outage", "redis", REDIS_OUTAGE).count == 1:
            events.record("sys_limiter_degraded", reason=type(error).__name__)

    def _find(self) -> None:
        if not self._away:
            return
        self._away = False
        self._ask_again_at = 0.0
        forget(("outage", "redis"))
        db.session.commit()
        log.info("limiter_recovered")


def _refuse(breached: RequestLimit) -> Response:
    """Return a 429 response; record it only once, or attackers could fill the table."""
    seconds = max(1, int(breached.reset_at - time.time()))
    told = f"told/{breached.key}"
    if (
        limiter.storage.incr(told, seconds) == 1
        and count("told", breached.key, timedelta(seconds=seconds)).count == 1
    ):
        events.record("excess_rate_limit_exceeded", limit=str(breached.limit))
    answer = errors.show(TooManyRequests(retry_after=seconds))
    return current_app.make_response(answer)


limiter = Limiter(network, storage_uri="bulwark://", on_breach=_refuse)
# Limits how often each network may call a view. Put it right above the function.
limit = limiter.limit


def init_app(app: Flask, config: settings.Config) -> None:
    """Count in Redis if the settings name one."""
    app.config["RATELIMIT_KEY_PREFIX"] = config.slug
    app.config["RATELIMIT_STORAGE_OPTIONS"] = {"redis_url": config.redis_url}
    limiter.init_app(app)


def share(app: Flask, rule: str, name: str, endpoints: Iterable[str]) -> None:
    """Apply one shared limit to POST requests to these routes of an extension."""
    shared = limiter.shared_limit(rule, name, methods=["POST"])
    for endpoint in endpoints:
        view: Callable[..., Any] = app.view_functions[endpoint]
        app.view_functions[endpoint] = shared(view)


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
    dialect = postgresql if db.engine.dialect.name == "postgresql" else sqlite
    # A window that ends later than it could began while the clock was wrong.
    latest = now + window + CLOCKS_DIFFER
    over = or_(Guess.expires_at <= now, Guess.expires_at > latest)
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


def undo(kind: str, subject: str) -> None:
    """Subtract an attempt immediately: it was correct, or was not checked."""
    db.session.execute(
        update(Guess)
        .where(Guess.key == _key(kind, subject), Guess.count > 0)
        .values(count=Guess.count - 1)
        .execution_options(synchronize_session=False)
    )
    db.session.commit()


def forget(*tries: tuple[str, str]) -> int:
    """Forget attempts, given as kind and subject; return how many there were.

    Unlike the other functions, this is part of the current transaction.
    """
    keys = [_key(kind, subject) for kind, subject in tries]
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
