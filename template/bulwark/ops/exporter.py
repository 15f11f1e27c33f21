"""`flask metrics`: exposes the counts of all processes, and the service's state.

It listens on its own port (APP_METRICS_BIND), which no proxy exposes. The state of the
database, the email queue and the certificate is checked on each scrape.
"""

import http.client
import os
import platform
import signal
import time
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from wsgiref.simple_server import WSGIServer

import click
from cryptography import x509
from flask import Flask, current_app
from flask.cli import with_appcontext
from prometheus_client import CollectorRegistry, Metric, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from sqlalchemy import func, select

from bulwark import settings
from bulwark.audit import events, trail
from bulwark.audit.events import SecurityEvent
from bulwark.database import db, utcnow
from bulwark.identity import accounts
from bulwark.jobs import queue
from bulwark.jobs.state import recall_time
from bulwark.mail.outbox import OutgoingMail
from bulwark.network import network_of
from bulwark.ops import health, status

RECENT = timedelta(minutes=10)
FIRST_STEP, SECOND_STEP = "authn_login_fail", "authn_mfa_fail"
CERTIFICATE_KEPT = 300  # seconds in the cache; it changes every few weeks


class State(Collector):
    """The current state of the service, checked on each scrape."""

    def __init__(self, app: Flask) -> None:
        self.app = app
        self._certificate: x509.Certificate | None = None
        self._looked_at = -float(CERTIFICATE_KEPT)

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics; those that can't be determined are missing."""
        with self.app.app_context():
            yield _info()
            own = {name: health.CHECKS[name] for name in ("database", "limiter")}
            up = {k: not said for k, said in health.ask(own | {"web": _visit}).items()}
            yield _gauge("database_up", "Whether the database responds", up["database"])
            counted = "Whether requests are counted in Redis"
            yield _gauge("limiter_up", counted, up["limiter"])
            yield _gauge("web_up", "Whether the service responds to clients", up["web"])
            yield from self._of_certificate()
            yield from _of_disk()
            if up["database"]:
                yield from _of_database()

    def _of_certificate(self) -> Iterator[Metric]:
        if time.monotonic() - self._looked_at > CERTIFICATE_KEPT:
            self._looked_at = time.monotonic()
            self._certificate = status.served_certificate()
        if self._certificate is None:
            return
        begin = self._certificate.not_valid_before_utc
        end = self._certificate.not_valid_after_utc
        yield _gauge(
            "certificate_expires_timestamp_seconds",
            "When the served certificate expires",
            end.timestamp(),
        )
        yield _gauge(
            "certificate_life_left_ratio",
            "The share of the served certificate's lifetime that is left",
            max(0.0, (end - utcnow()) / (end - begin)),
        )


@click.command("metrics")
@with_appcontext
def serve() -> None:
    """Serve metrics on APP_METRICS_BIND until stopped."""
    config = settings.current()
    app = current_app._get_current_object()  # type: ignore[attr-defined]
    # Threads of the server inherit this mask, so only sigwait() gets these signals.
    ends = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    server = listen(config.metrics_bind, registry(app))
    with server, events.log_lifecycle("metrics"):
        signal.sigwait(ends)
        server.shutdown()


def init_app(app: Flask) -> None:
    """Add the command."""
    app.cli.add_command(serve)


def listen(bind: str, found: CollectorRegistry) -> WSGIServer:
    """Serve at an address like `127.0.0.1:9464` or `[::1]:9464`, in threads."""
    host, _, port = bind.rpartition(":")
    server, _ = start_http_server(int(port), host.strip("[]"), found)
    return server


def registry(app: Flask) -> CollectorRegistry:
    """Return the registry of all metrics."""
    found = CollectorRegistry()
    folder = app.extensions["bulwark"].metrics_folder
    MultiProcessCollector(found, folder)  # type: ignore[no-untyped-call]
    found.register(State(app))
    return found


def _gauge(name: str, doc: str, value: float) -> Metric:
    return GaugeMetricFamily(name, doc, value=float(value))


def _moment(name: str, doc: str, moment: datetime | None) -> Metric:
    """Return a time as a Unix timestamp, which is 0 if there is none."""
    return _gauge(name, doc, moment.timestamp() if moment else 0)


def _info() -> Metric:
    labels = {
        "service": settings.current().slug,
        "version": settings.current().version,
        "template": settings.current().template,
        "python": platform.python_version(),
    }
    info = GaugeMetricFamily("build_info", "What is running", labels=list(labels))
    info.add_metric(list(labels.values()), 1)
    return info


def _of_disk() -> Iterator[Metric]:
    folder = Path(current_app.root_path).parent / "instance"
    disk = GaugeMetricFamily(
        "disk_free_ratio", "The share of the disk that is free", labels=["folder"]
    )
    if folder.is_dir():
        found = os.statvfs(folder)
        disk.add_metric(["data"], found.f_bavail / found.f_blocks)
    yield disk


def _of_database() -> Iterator[Metric]:
    try:
        yield from _of_sign_ins()
        yield from _of_work()
        yield from _of_audit()
        yield _gauge(
            "administrators",
            "Users who are administrators",
            accounts.count_administrators(),
        )
    finally:
        db.session.remove()


def _of_sign_ins() -> Iterator[Metric]:
    """Yield numbers of failed sign-ins: labels must not name accounts or networks."""
    found = db.session.execute(
        select(
            SecurityEvent.name,
            SecurityEvent.user_id,
            SecurityEvent.address,
            func.count(),
        )
        .where(
            SecurityEvent.at > utcnow() - RECENT,
            SecurityEvent.name.in_((FIRST_STEP, SECOND_STEP)),
        )
        .group_by(SecurityEvent.name, SecurityEvent.user_id, SecurityEvent.address)
    ).all()
    by_account, by_network, by_code = Counter[int](), Counter[str](), Counter[int]()
    total = 0
    for name, user_id, address, times in found:
        if name == SECOND_STEP:
            by_code[user_id or 0] += times
            continue
        total += times
        by_network[network_of(address) if address else ""] += times
        if user_id:
            by_account[user_id] += times
    for suffix, doc, value in (
        ("", "Failed sign-ins", total),
        ("_accounts", "Accounts with failed sign-ins", len(by_account)),
        ("_networks", "Networks with failed sign-ins", len(by_network)),
        ("_per_account_max", "Most failed sign-ins for one account", _most(by_account)),
        ("_per_network_max", "Most failed sign-ins from a network", _most(by_network)),
    ):
        name = f"sign_in_failures_recent{suffix}"
        yield _gauge(name, f"{doc}, in the last 10 minutes", value)
    yield _gauge(
        "second_factor_failures_recent_per_account_max",
        "Most wrong second factors for one account in the last 10 minutes",
        _most(by_code),
    )


def _most(counter: Counter[Any]) -> int:
    return max(counter.values(), default=0)


def _of_work() -> Iterator[Metric]:
    waiting, oldest, failed = db.session.execute(
        select(
            func.count(),
            func.min(OutgoingMail.created_at),
            func.count().filter(OutgoingMail.attempts > 1),
        )
    ).one()
    age = (utcnow() - oldest).total_seconds() if oldest else 0
    yield _gauge("mail_waiting", "Emails that are not delivered yet", waiting)
    yield _gauge("mail_oldest_seconds", "How long the oldest email has waited", age)
    yield _gauge("mail_failed", "Waiting emails with more than one attempt", failed)
    yield _gauge("jobs_waiting", "Jobs that no worker started", queue.pending_count())
    yield _moment(
        "jobs_heartbeat_timestamp_seconds",
        "When a worker last sent a heartbeat",
        recall_time("sign of life"),
    )
    yield _moment(
        "backup_last_timestamp_seconds",
        "When the last backup finished",
        recall_time("backup"),
    )


def _of_audit() -> Iterator[Metric]:
    state = trail.state()
    yield _gauge("audit_rows", "Rows ever written to the audit trail", state.rows)
    intact = "Whether the last check found the audit trail intact"
    yield _gauge("audit_chain_valid", intact, not state.fault)
    yield _moment(
        "audit_checked_timestamp_seconds",
        "When the audit trail was last checked",
        state.checked,
    )


def _visit() -> None:
    """Check that the service responds to clients: through the proxy, over TLS.

    There is no other way to gunicorn: only the proxy can access its socket.
    """
    host = urlsplit(settings.current().base_url).netloc
    with status.as_visitor() as connection:
        web = http.client.HTTPConnection(host)
        web.sock = connection
        web.request("GET", "/healthz")
        if web.getresponse().status != HTTPStatus.OK:
            raise health.CheckFailedError("the response is not from the service")
