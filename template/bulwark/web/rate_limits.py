"""Rate limits: how often each network may call a view.

Requests are counted in Redis, or in each process if there is no Redis or it is down.

@blueprint.post("/prices")
@public
@limit("10 per minute")
def prices(): ...
"""

import time
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any, TypeVar

from flask import Flask, Response, current_app, request
from flask_limiter import Limiter, RequestLimit
from limits.storage import MemoryStorage, RedisStorage, Storage
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.retry import Retry
from werkzeug.exceptions import TooManyRequests

from bulwark import settings
from bulwark.audit import events
from bulwark.database import db
from bulwark.network import network_of
from bulwark.observability.logging import log
from bulwark.web import attempts, errors

T = TypeVar("T")

# A working Redis responds within a millisecond; clients don't wait for a slow one.
REDIS_TIMEOUT = 0.25  # seconds
REDIS_PAUSE = 5  # seconds until a connection is retried
REDIS_OUTAGE = timedelta(hours=1)  # how long processes treat it as the same outage


def network() -> str:
    """Return the network that the request came from, which a limit applies to."""
    return network_of(request.remote_addr or "unknown")


class Counters(Storage):
    """Counts in Redis, or in this process while Redis is not available."""

    STORAGE_SCHEME = ["bulwark"]  # noqa: RUF012  as its base declares it
    base_exceptions = RedisError

    def __init__(self, uri: str, redis_url: str = "", **options: Any) -> None:
        super().__init__(uri)
        self._memory = MemoryStorage()
        self._redis: RedisStorage | None = None
        self._retry_at = 0.0
        self._down = False
        if redis_url:
            # Retries once without a delay, for a connection that was closed meanwhile.
            retry = Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,))
            self._redis = RedisStorage(
                redis_url,
                socket_connect_timeout=REDIS_TIMEOUT,
                socket_timeout=REDIS_TIMEOUT,
                retry=retry,  # type: ignore[arg-type]
                **options,
            )

    def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        """Count, and return how many there are in this window."""
        return self._run(lambda store: store.incr(key, int(expiry), amount))

    def get(self, key: str) -> int:
        """Return how many there are in this window."""
        return self._run(lambda store: store.get(key))

    def get_expiry(self, key: str) -> float:
        """Return when the window ends, in seconds since 1970."""
        return self._run(lambda store: store.get_expiry(key))

    def clear(self, key: str) -> None:
        """Forget one window."""
        self._run(lambda store: store.clear(key))

    def check(self) -> bool:
        """Return whether counts are where they should be; counting always works."""
        return self._redis is None or bool(self._redis.check())

    def reset(self) -> int | None:
        """Forget all windows."""
        return self._run(lambda store: store.reset())

    def _run(self, operation: Callable[[RedisStorage | MemoryStorage], T]) -> T:
        if self._redis and time.monotonic() >= self._retry_at:
            if self._down:
                # One request checks whether Redis is back; the others need not wait.
                self._retry_at = time.monotonic() + REDIS_PAUSE
            try:
                result = operation(self._redis)
            except RedisError as error:
                self._mark_down(error)
            else:
                self._mark_up()
                return result
        return operation(self._memory)

    def _mark_down(self, error: RedisError) -> None:
        self._retry_at = time.monotonic() + REDIS_PAUSE
        if self._down:
            return
        self._down = True
        # The count in the database shows which process noticed first.
        if attempts.count("outage", "redis", REDIS_OUTAGE).count == 1:
            events.record("sys_limiter_degraded", reason=type(error).__name__)

    def _mark_up(self) -> None:
        if not self._down:
            return
        self._down = False
        self._retry_at = 0.0
        attempts.forget(("outage", "redis"))
        db.session.commit()
        log.info("limiter_recovered")


def _too_many_requests(breached: RequestLimit) -> Response:
    """Return a 429 response; record it only once, or attackers could fill the table."""
    seconds = max(1, int(breached.reset_at - time.time()))
    window = timedelta(seconds=seconds)
    if (
        limiter.storage.incr(f"reported/{breached.key}", seconds) == 1
        and attempts.count("reported", breached.key, window).count == 1
    ):
        events.record("excess_rate_limit_exceeded", limit=str(breached.limit))
    shown = errors.show(TooManyRequests(retry_after=seconds))
    return current_app.make_response(shown)


class ViewLimiter(Limiter):
    """Leaves out the check before each request if nothing needs it.

    Views check their own limits when they are called. The check before a request is for
    limits of a blueprint, of all views, or of the whole app.
    """

    def _check_request_limit(
        self, callable_name: str | None = None, in_middleware: bool = True
    ) -> None:
        manager = self.limit_manager
        if not in_middleware or (
            manager._blueprint_limits
            or manager._default_limits
            or manager._application_limits
        ):
            super()._check_request_limit(callable_name, in_middleware)


limiter = ViewLimiter(network, storage_uri="bulwark://", on_breach=_too_many_requests)
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
