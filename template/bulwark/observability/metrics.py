"""Metrics: each process counts in its own files, which `flask metrics` sums up.

No route exposes them: numbers about attacks are not public. Labels are routes, events
and codes, but never users or addresses, whose number is unlimited.
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
from sqlalchemy.pool import Pool, QueuePool

from bulwark.settings import Config

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
HEALTH = ("/healthz", "/readyz")
SIGN_IN, CHANGE = "security.login", "security.change_password"
# The steps of a sign-in. `done` is counted apart from the event, which must follow.
STEPS = ("started", "password", "factor", "done")


class Slot:
    """The number of a process, which names its files: the lowest that is free.

    With process ids, every worker that ends would leave files behind, and two
    containers may have the same id. A number is free again as soon as its process has
    ended, for any reason, and the next process continues its counts.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._process = 0
        self._number = ""
        self._lock: IO[str] | None = None

    def number(self) -> str:
        """Return this process's number; a forked process takes its own."""
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
            # Gauges are no longer true after their process has ended.
            for stale in self.folder.glob(f"gauge_*_{number}.db"):
                stale.unlink()
            self._process, self._number, self._lock = os.getpid(), number, lock
            return


class Counts:
    """The metrics of a process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = self._counter(
            "http_requests_total", "Requests served", "method", "route", "status"
        )
        self.durations = Histogram(
            "http_request_duration_seconds",
            "How long requests took",
            ("method", "route"),
            buckets=BUCKETS,
            registry=self.registry,
        )
        self.events = self._counter(
            "security_events_total", "Security events, by name", "event"
        )
        self.sign_in_steps = self._counter(
            "sign_in_steps_total", "Sign-ins that reached a step", "step"
        )
        self.mails = self._counter("mails_total", "Emails, by result", "result")
        self.browser_reports = self._counter(
            "browser_reports_total",
            "Reports of browsers about what they blocked, by directive",
            "directive",
        )
        self.lines_dropped = self._counter(
            "log_lines_dropped_total",
            "Log lines that were counted, but not written",
            "event",
        )
        self.pool_in_use = self._gauge(
            "database_pool_in_use",
            "Database connections that one process is using",
        )
        self.pool_size = self._gauge(
            "database_pool_size", "Database connections that one process may have"
        )

    def begin_at_zero(self, events: Iterable[str]) -> None:
        """Show zero for what has not happened yet: a missing series has no rate."""
        for name in events:
            self.events.labels(name)
        for step in STEPS:
            self.sign_in_steps.labels(step)

    def _counter(self, name: str, doc: str, *labels: str) -> Counter:
        return Counter(name, doc, labels, registry=self.registry)

    def _gauge(self, name: str, doc: str) -> Gauge:
        """Return a gauge of the highest process's value; each has its own limit."""
        return Gauge(name, doc, registry=self.registry, multiprocess_mode="livemax")


@cache
def _counts(folder: Path) -> Counts:
    """Return this process's metrics in a folder, created once."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
    values.ValueClass = values.MultiProcessValue(Slot(folder).number)  # type: ignore[no-untyped-call]
    return Counts()


def init_app(app: Flask, config: Config, events: Iterable[str], pool: Pool) -> None:
    """Count sign-ins, events, and the connections of the database's pool."""
    counts = _counts(Path(config.metrics_folder))
    counts.begin_at_zero(events)
    app.extensions["metrics"] = counts
    user_logged_in.connect(_signed_in, app)
    _watch(counts, pool)


def current() -> Counts:
    """Return the metrics of the running app."""
    counts: Counts = current_app.extensions["metrics"]
    return counts


def server_errors(folder: Path) -> int:
    """Return how many requests failed in all processes since the folder was created.

    Health checks do not count, as in the alerts.
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
    """Count a request, by its route's template, when its response starts."""
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
    """Count a completed sign-in; a changed password only renews its session."""
    if request.endpoint != CHANGE:
        g.signed_in = True
        current().sign_in_steps.labels("done").inc()


def _watch(counts: Counts, pool: Pool) -> None:
    """Count the connections in use; SQLite in memory has only one."""
    if not isinstance(pool, QueuePool):
        return
    counts.pool_size.set(pool.size() + pool._max_overflow)  # there is no public name

    @event.listens_for(pool, "checkout")
    def _out(*_: object) -> None:
        counts.pool_in_use.inc()

    @event.listens_for(pool, "checkin")
    def _in(*_: object) -> None:
        counts.pool_in_use.dec()
