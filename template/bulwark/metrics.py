"""Metrics: each process counts into files of its own, which `flask metrics` sums up.

No route serves them: a page of numbers about attacks is not for visitors. Labels are
routes, events and codes, never a person or an address, of which there is no end.
"""

import fcntl
import os
from collections.abc import Iterable
from functools import cache
from itertools import count
from pathlib import Path
from typing import IO, Any

from flask import Flask, current_app, g, has_request_context, request, session
from flask_login import user_logged_in
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, values
from prometheus_client.multiprocess import MultiProcessCollector
from sqlalchemy import event
from sqlalchemy.pool import QueuePool

from bulwark.config import Config
from bulwark.database import db

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
HEALTH = ("/healthz", "/readyz")
SIGN_IN, CHANGE = "security.login", "security.change_password"
# How far a sign-in came. `done` is counted apart from events: one has to follow.
STEPS = ("started", "password", "factor", "done")


class Slot:
    """The number that a process counts under: the lowest that nobody holds.

    A process id would leave files behind with every worker that ends, and two
    containers may have the same. A number is free again as soon as its process is gone,
    however it went, and the next one goes on counting where it stopped.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._process = 0
        self._number = ""
        self._lock: IO[str] | None = None

    def number(self) -> str:
        """Return this process's number; a process that was forked takes one anew."""
        if self._process != os.getpid():
            self._take()
        return self._number

    def _take(self) -> None:
        for number in map(str, count()):
            lock = (self.folder / f"{number}.lock").open("a")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.close()
                continue
            # What is true of a moment ended with the process that said it.
            for stale in self.folder.glob(f"gauge_*_{number}.db"):
                stale.unlink()
            self._process, self._number, self._lock = os.getpid(), number, lock
            return


class Counts:
    """All that a process counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = self._counter(
            "http_requests_total", "Requests answered", "method", "route", "status"
        )
        self.durations = Histogram(
            "http_request_duration_seconds",
            "How long requests took",
            ("method", "route"),
            buckets=BUCKETS,
            registry=self.registry,
        )
        self.events = self._counter(
            "security_events_total", "Security events, by their name", "event"
        )
        self.sign_in_steps = self._counter(
            "sign_in_steps_total", "How far sign-ins came", "step"
        )
        self.mails = self._counter("mails_total", "What became of mails", "result")
        self.lines_left_out = self._counter(
            "log_lines_dropped_total",
            "Lines of security events that were counted, not written",
            "event",
        )
        self.pool_in_use = self._gauge(
            "database_pool_in_use", "Database connections that one process has at work"
        )
        self.pool_size = self._gauge(
            "database_pool_size", "Database connections that one process may have"
        )

    def begin_at_zero(self, events: Iterable[str]) -> None:
        """Show what has not happened yet: the rate of what is not there is unknown."""
        for name in events:
            self.events.labels(name)
        for step in STEPS:
            self.sign_in_steps.labels(step)

    def _counter(self, name: str, doc: str, *labels: str) -> Counter:
        return Counter(name, doc, labels, registry=self.registry)

    def _gauge(self, name: str, doc: str) -> Gauge:
        """Return what is told of the process that has most; each has its own limit."""
        return Gauge(name, doc, registry=self.registry, multiprocess_mode="livemax")


@cache
def _counts(folder: Path) -> Counts:
    """Return what this process counts in a folder, made once."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
    values.ValueClass = values.MultiProcessValue(Slot(folder).number)  # type: ignore[no-untyped-call]
    return Counts()


def init_app(app: Flask, config: Config, events: Iterable[str]) -> None:
    """Count sign-ins, events, and the connections of the database's pool."""
    counts = _counts(Path(config.metrics_folder))
    counts.begin_at_zero(events)
    app.extensions["metrics"] = counts
    user_logged_in.connect(_signed_in, app)
    with app.app_context():
        _watch(db.engine.pool)


def current() -> Counts:
    """Return what the running app counts."""
    counts: Counts = current_app.extensions["metrics"]
    return counts


def server_errors(folder: Path) -> int:
    """Return how many requests failed, in all processes, since their folder was made.

    Not those that ask whether all is well, as the alerts see it.
    """
    files = [str(path) for path in folder.glob("counter_*.db")]
    return int(
        sum(
            sample.value
            for metric in MultiProcessCollector.merge(files)  # type: ignore[no-untyped-call]
            for sample in metric.samples
            if sample.name == "http_requests_total"
            and sample.labels["status"].startswith("5")
            and sample.labels["route"] not in HEALTH
        )
    )


def count_request(method: str, route: str | None, status: int, seconds: float) -> None:
    """Count a request, by its route's template, when its answer begins."""
    counts = current()
    labels = (method if method in METHODS else "other", route or "none")
    counts.requests.labels(*labels, str(status)).inc()
    counts.durations.labels(*labels).observe(seconds)
    if has_request_context():
        _count_step(counts)


def _count_step(counts: Counts) -> None:
    if request.endpoint != SIGN_IN:
        if "signed_in" in g:  # in a second step, or with a passkey alone
            counts.sign_in_steps.labels("factor").inc()
    elif request.method == "GET":
        counts.sign_in_steps.labels("started").inc()
    elif "signed_in" in g or "tf_user_id" in session:
        counts.sign_in_steps.labels("password").inc()


def _signed_in(_: Flask, **__: Any) -> None:
    """Count who is in; a changed password only gives its session another number."""
    if request.endpoint != CHANGE:
        g.signed_in = True
        current().sign_in_steps.labels("done").inc()


def _watch(pool: Any) -> None:
    """Count the connections that are out; SQLite in memory has but one."""
    if not isinstance(pool, QueuePool):
        return
    counts = current()
    counts.pool_size.set(pool.size() + pool._max_overflow)  # no other way

    @event.listens_for(pool, "checkout")
    def _out(*_: object) -> None:
        counts.pool_in_use.inc()

    @event.listens_for(pool, "checkin")
    def _in(*_: object) -> None:
        counts.pool_in_use.dec()
