"""Metrics of the service's state, which are determined on each scrape.

Here are the database, the email queue, sign-ins, the audit trail and the certificate.
"""

import http.client
import os
import platform
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cryptography import x509
from flask import Flask, current_app
from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import Row, func, select

from bulwark import settings
from bulwark.audit import checks
from bulwark.audit.events import SecurityEvent
from bulwark.database import db, utcnow
from bulwark.identity import administrators
from bulwark.jobs import queue, runs
from bulwark.jobs.runs import JobRun
from bulwark.jobs.state import recall_time
from bulwark.mail.outbox import OutgoingMail
from bulwark.network import network_of
from bulwark.ops import health, status
from bulwark.ops.backups import drill_results
from bulwark.ops.keys import ages

RECENT = timedelta(minutes=10)
FIRST_STEP, SECOND_STEP = "authn_login_fail", "authn_mfa_fail"
CERTIFICATE_CACHED = 300  # seconds; it changes every few weeks


@dataclass
class Failures:
    """Recent failed sign-ins by account and network, and second factors by account."""

    by_account: Counter[int] = field(default_factory=Counter)
    by_network: Counter[str] = field(default_factory=Counter)
    second_factors: Counter[int] = field(default_factory=Counter)


class StateCollector(Collector):
    """The current state of the service, checked on each scrape."""

    def __init__(self, app: Flask) -> None:
        self.app = app
        self._certificate: x509.Certificate | None = None
        self._fetched_at = -float(CERTIFICATE_CACHED)

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics; those that can't be determined are missing."""
        with self.app.app_context():
            yield _info()
            checks = {name: health.CHECKS[name] for name in ("database", "limiter")}
            faults = health.run_checks(checks | {"web": _check_web})
            yield _gauge(
                "database_up", "Whether the database responds", not faults["database"]
            )
            yield _gauge(
                "limiter_up",
                "Whether requests are counted in Redis",
                not faults["limiter"],
            )
            yield _gauge(
                "web_up", "Whether the service responds to clients", not faults["web"]
            )
            yield from self._certificate_metrics()
            yield from _disk_metrics()
            if not faults["database"]:
                yield from _database_metrics()

    def _certificate_metrics(self) -> Iterator[Metric]:
        if time.monotonic() - self._fetched_at > CERTIFICATE_CACHED:
            self._fetched_at = time.monotonic()
            self._certificate = status.served_certificate()
        if self._certificate is None:
            return
        start = self._certificate.not_valid_before_utc
        end = self._certificate.not_valid_after_utc
        yield _gauge(
            "certificate_expires_timestamp_seconds",
            "When the served certificate expires",
            end.timestamp(),
        )
        yield _gauge(
            "certificate_life_left_ratio",
            "The share of the served certificate's lifetime that is left",
            max(0.0, (end - utcnow()) / (end - start)),
        )


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


def _disk_metrics() -> Iterator[Metric]:
    folder = Path(current_app.root_path).parent / "instance"
    disk = GaugeMetricFamily(
        "disk_free_ratio", "The share of the disk that is free", labels=["folder"]
    )
    if folder.is_dir():
        usage = os.statvfs(folder)
        disk.add_metric(["data"], usage.f_bavail / usage.f_blocks)
    yield disk


def _database_metrics() -> Iterator[Metric]:
    try:
        yield from _sign_in_metrics()
        yield from _work_metrics()
        yield from _drill_metrics()
        yield from _audit_metrics()
        yield from _key_metrics()
        yield _gauge(
            "administrators",
            "Users who are administrators",
            administrators.count(),
        )
    finally:
        db.session.remove()


def _sign_in_metrics() -> Iterator[Metric]:
    """Yield numbers of failed sign-ins: labels must not name accounts or networks."""
    failures = _count_failures()
    by_account, by_network = failures.by_account, failures.by_network
    for suffix, doc, value in (
        ("", "Failed sign-ins", by_network.total()),
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
        _most(failures.second_factors),
    )


def _count_failures() -> Failures:
    failures = Failures()
    for name, user_id, address, count in _recent_failures():
        if name == SECOND_STEP:
            failures.second_factors[user_id or 0] += count
            continue
        failures.by_network[network_of(address) if address else ""] += count
        if user_id:
            failures.by_account[user_id] += count
    return failures


def _recent_failures() -> Sequence[Row[str, int | None, str | None, int]]:
    columns = (SecurityEvent.name, SecurityEvent.user_id, SecurityEvent.address)
    return db.session.execute(
        select(*columns, func.count())
        .where(
            SecurityEvent.at > utcnow() - RECENT,
            SecurityEvent.name.in_((FIRST_STEP, SECOND_STEP)),
        )
        .group_by(*columns)
    ).all()


def _most(counter: Counter[Any]) -> int:
    return max(counter.values(), default=0)


def _work_metrics() -> Iterator[Metric]:
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
    query = select(JobRun.state, func.count()).group_by(JobRun.state)
    jobs: dict[str, int] = dict(db.session.execute(query).all())
    waiting = queue.pending_count() + jobs.get(runs.WAITING, 0)
    yield _gauge("jobs_waiting", "Jobs that no worker started", waiting)
    failed = jobs.get(runs.FAILED, 0)
    yield _gauge("jobs_failed", "Jobs that failed at their last try", failed)
    yield _timestamp(
        "jobs_heartbeat_timestamp_seconds",
        "When a worker last sent a heartbeat",
        recall_time("sign of life"),
    )
    yield _timestamp(
        "backup_last_timestamp_seconds",
        "When the last backup finished",
        recall_time("backup"),
    )


def _drill_metrics() -> Iterator[Metric]:
    results = drill_results.read()
    yield _timestamp(
        "backup_first_timestamp_seconds",
        "When the first backup finished",
        results.first_backup,
    )
    yield _timestamp(
        "restore_drill_last_timestamp_seconds",
        "When a restore drill last passed",
        results.passed_at,
    )
    failed = "Whether the last restore drill failed"
    yield _gauge("restore_drill_failed", failed, results.failed)
    duration = "How long the last restore drill took"
    yield _gauge("restore_drill_duration_seconds", duration, results.seconds)


def _key_metrics() -> Iterator[Metric]:
    since = GaugeMetricFamily(
        "key_used_since_timestamp_seconds",
        "Since when the service has used its current key",
        labels=["key"],
    )
    for name, moment in ages.since().items():
        if moment is not None:
            since.add_metric([name], moment.timestamp())
    yield since


def _audit_metrics() -> Iterator[Metric]:
    state = checks.state()
    yield _gauge("audit_rows", "Rows ever written to the audit trail", state.rows)
    intact = "Whether the last check found the audit trail intact"
    yield _gauge("audit_chain_valid", intact, not state.fault)
    yield _timestamp(
        "audit_checked_timestamp_seconds",
        "When the audit trail was last checked",
        state.checked,
    )


def _check_web() -> None:
    """Check that the service responds to clients: through the proxy, over TLS.

    There is no other way to gunicorn: only the proxy can access its socket.
    """
    host = urlsplit(settings.current().base_url).netloc
    with status.connect_as_client() as connection:
        web = http.client.HTTPConnection(host)
        web.sock = connection
        web.request("GET", "/healthz")
        if web.getresponse().status != HTTPStatus.OK:
            raise health.CheckFailedError("the response is not from the service")


def _gauge(name: str, doc: str, value: float) -> Metric:
    return GaugeMetricFamily(name, doc, value=float(value))


def _timestamp(name: str, doc: str, moment: datetime | None) -> Metric:
    """Return a time as a Unix timestamp, which is 0 if there is none."""
    return _gauge(name, doc, moment.timestamp() if moment else 0)
