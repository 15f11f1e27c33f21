"""Health checks: /healthz (liveness), /readyz (readiness) and `flask health`.

Clients get one word; only the operator sees what is wrong.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from datetime import timedelta
from functools import cache

import click
from alembic.script import ScriptDirectory
from alembic.util import to_tuple
from flask import Blueprint, Flask, current_app, jsonify
from flask.cli import with_appcontext
from flask.typing import ResponseReturnValue
from sqlalchemy import func, select, text

from bulwark.database import db, migrate, utcnow
from bulwark.jobs import queue
from bulwark.jobs.state import recall_time
from bulwark.mail.outbox import OutgoingMail
from bulwark.observability.logging import log
from bulwark.web.access import public
from bulwark.web.rate_limits import limiter

blueprint = Blueprint("health", __name__)

DEADLINE = 2  # seconds for each check; clients time out soon after
MAIL_MAY_WAIT = timedelta(minutes=15)
SILENCE = timedelta(minutes=5)  # a worker sends a heartbeat each minute


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
    """Return 503 if this process can't serve, "degraded" if a check in MISSED fails.

    If Redis is down or emails are delayed, that is no reason to turn clients away or to
    roll back a release. There are alerts for both.
    """
    found = ask({name: CHECKS[name] for name in (*NEEDED, *MISSED)})
    if any(found[name] for name in NEEDED):
        log.error("not_ready", checks={k: said for k, said in found.items() if said})
        return jsonify(status="unavailable"), 503, {"Retry-After": "5"}
    return jsonify(status="degraded" if any(found.values()) else "ok")


@click.command()
@with_appcontext
def health() -> None:
    """Check all that the service needs; exit with 1 if a check fails."""
    found = ask(CHECKS)
    for name, said in found.items():
        click.echo(f"{name:<12}{said or 'ok'}")
    if any(found.values()):
        raise SystemExit(1)


def _database() -> None:
    db.session.execute(text("SELECT 1"))


def _migrations() -> None:
    """Compare with the code. Unknown revisions are from a newer release."""
    parents, heads = _revisions()
    found = list(db.session.scalars(text("SELECT version_num FROM alembic_version")))
    if not parents.keys() >= set(found):
        return
    applied = set[str]()
    while found:  # the table contains only the heads
        revision = found.pop()
        if revision not in applied:
            applied.add(revision)
            found += parents[revision]
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
    if oldest and utcnow() - oldest > MAIL_MAY_WAIT:
        since = f"{oldest:%Y-%m-%d %H:%M} UTC"
        raise CheckFailedError(f"an email has been waiting since {since}")


def _worker() -> None:
    queue.pending_count()
    seen = recall_time("sign of life")
    if seen is None or utcnow() - seen > SILENCE:
        raise CheckFailedError("no worker is running: start one with `flask worker`")


Check = Callable[[], None]
CHECKS: dict[str, Check] = {
    "database": _database,
    "migrations": _migrations,
    "limiter": _limiter,
    "mail": _mail,
    "worker": _worker,
}
# The checks of /readyz: if one of NEEDED fails, the service can't serve.
NEEDED, MISSED = ("database", "migrations"), ("limiter", "mail")


@cache
def _threads() -> ThreadPoolExecutor:
    """Return the thread pool, created on first use: threads don't survive a fork."""
    return ThreadPoolExecutor(len(CHECKS), thread_name_prefix="health")


_running: dict[str, Future[str]] = {}


def ask(checks: Mapping[str, Check]) -> dict[str, str]:
    """Run checks in parallel, within one deadline.

    Returns:
        what is wrong, by the name of the check; "" if it passed.
    """
    running = {name: _begin(name, check) for name, check in checks.items()}
    wait(running.values(), DEADLINE)
    late = f"did not respond within {DEADLINE} seconds"
    return {n: found.result() if found.done() else late for n, found in running.items()}


def _begin(name: str, check: Check) -> Future[str]:
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
