"""Health checks: /healthz (liveness), /readyz (readiness) and `flask health`.

Clients get one word; only the operator sees what is wrong.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import cache

import click
from alembic.script import ScriptDirectory
from alembic.util import to_tuple
from flask import Blueprint, Flask, current_app, jsonify
from flask.cli import with_appcontext
from flask.typing import ResponseReturnValue
from sqlalchemy import func, select, text

from bulwark.database import db, utcnow
from bulwark.database.migrations import migrate
from bulwark.jobs import queue
from bulwark.jobs.state import recall_time
from bulwark.mail.outbox import OutgoingMail
from bulwark.observability.logging import log
from bulwark.ops import thresholds
from bulwark.uploads import storage
from bulwark.uploads.storage import StorageError
from bulwark.web.access import public
from bulwark.web.rate_limits import limiter

blueprint = Blueprint("health", __name__)

DEADLINE = 2  # seconds for each check; clients time out soon after


class CheckFailedError(Exception):
    """A check failed. The message is for the operator."""


def init_app(app: Flask) -> None:
    """Add the two public endpoints, and `flask health`."""
    app.register_blueprint(blueprint)
    app.cli.add_command(health)


@blueprint.get("/healthz")
@public
def live() -> ResponseReturnValue:
    """Respond as long as the process can."""
    return jsonify(status="ok")


@blueprint.get("/readyz")
@public
def ready() -> ResponseReturnValue:
    """Return 503 if this process can't serve, "degraded" if a check in OPTIONAL fails.

    If Redis is down or emails are delayed, that is no reason to turn clients away or to
    roll back a release. There are alerts for both.
    """
    faults = run_checks({name: CHECKS[name] for name in (*REQUIRED, *OPTIONAL)})
    if any(faults[name] for name in REQUIRED):
        log.error(
            "not_ready", checks={k: fault for k, fault in faults.items() if fault}
        )
        return jsonify(status="unavailable"), 503, {"Retry-After": "5"}
    return jsonify(status="degraded" if any(faults.values()) else "ok")


@click.command()
@with_appcontext
def health() -> None:
    """Check all that the service needs; exit with 1 if a check fails."""
    faults = run_checks(CHECKS)
    for name, fault in faults.items():
        click.echo(f"{name:<12}{fault or 'ok'}")
    if any(faults.values()):
        raise SystemExit(1)


def _database() -> None:
    db.session.execute(text("SELECT 1"))


def _migrations() -> None:
    """Compare with the code. Unknown revisions are from a newer release."""
    parents, heads = _revisions()
    stored = db.session.scalars(text("SELECT version_num FROM alembic_version"))
    pending = list(stored)
    if not parents.keys() >= set(pending):
        return
    applied = set[str]()
    while pending:  # the table contains only the heads
        revision = pending.pop()
        if revision not in applied:
            applied.add(revision)
            pending += parents[revision]
    if not heads <= applied:
        raise CheckFailedError("migrations were not applied: run `flask prepare`")


@cache
def _revisions() -> tuple[dict[str, list[str]], frozenset[str]]:
    """Return the parents of each revision in this code, and the heads."""
    scripts = ScriptDirectory.from_config(migrate.get_config())
    parents = {
        script.revision: [
            *to_tuple(script.down_revision, ()),
            *to_tuple(script.dependencies, ()),
        ]
        for script in scripts.walk_revisions()
    }
    return parents, frozenset(scripts.get_heads())


def _limiter() -> None:
    if not limiter.storage.check():
        raise CheckFailedError(
            "Redis does not respond: each process counts its own requests"
        )


def _mail() -> None:
    oldest = db.session.scalar(select(func.min(OutgoingMail.created_at)))
    if oldest and utcnow() - oldest > thresholds.QUEUED_MAIL_AGE:
        since = f"{oldest:%Y-%m-%d %H:%M} UTC"
        raise CheckFailedError(f"an email has been waiting since {since}")


def _worker() -> None:
    queue.pending_count()
    heartbeat = recall_time("sign of life")
    if heartbeat is None or utcnow() - heartbeat > thresholds.HEARTBEAT_AGE:
        raise CheckFailedError("no worker is running: start one with `flask worker`")


def _uploads() -> None:
    try:
        next(iter(storage.current().files()), None)
    except StorageError as error:
        raise CheckFailedError(str(error)) from error


Check = Callable[[], None]
CHECKS: dict[str, Check] = {
    "database": _database,
    "migrations": _migrations,
    "limiter": _limiter,
    "mail": _mail,
    "worker": _worker,
    "uploads": _uploads,
}
# The checks of /readyz: if one of REQUIRED fails, the service can't serve.
REQUIRED, OPTIONAL = ("database", "migrations"), ("limiter", "mail")


@cache
def _threads() -> ThreadPoolExecutor:
    """Return the thread pool, created on first use: threads don't survive a fork."""
    return ThreadPoolExecutor(len(CHECKS), thread_name_prefix="health")


_running: dict[str, Future[str]] = {}


def run_checks(checks: Mapping[str, Check]) -> dict[str, str]:
    """Run checks in parallel, within one deadline.

    Returns:
        what is wrong, by the name of the check; "" if it passed.
    """
    runs = {name: _start(name, check) for name, check in checks.items()}
    wait(runs.values(), DEADLINE)
    late = f"did not respond within {DEADLINE} seconds"
    return {name: run.result() if run.done() else late for name, run in runs.items()}


def _start(name: str, check: Check) -> Future[str]:
    """Start a check, or wait for its last run if that has not finished."""
    running = _running.get(name)
    if running is None or running.done():
        app = current_app._get_current_object()  # type: ignore[attr-defined]
        running = _running[name] = _threads().submit(_check, app, check)
    return running


def _check(app: Flask, check: Check) -> str:
    with app.app_context():
        try:
            check()
        except CheckFailedError as error:
            return str(error)
        except Exception as error:  # noqa: BLE001  any error means that the check failed
            return type(error).__name__
    return ""
