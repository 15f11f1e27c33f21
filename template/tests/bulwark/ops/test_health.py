"""Health: clients get one word, and the operator sees what is wrong."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from threading import Barrier, Event

import pytest
from flask import Flask
from sqlalchemy import text, update

from bulwark import mail
from bulwark.database import db, utcnow
from bulwark.jobs.state import remember_time
from bulwark.mail.outbox import OutgoingMail
from bulwark.ops import health, thresholds
from bulwark.web.rate_limits import limiter
from tests.conftest import Visitor

OK = {"status": "ok"}
DEGRADED = {"status": "degraded"}
UNAVAILABLE = {"status": "unavailable"}


def run_health(app: Flask) -> dict[str, str]:
    """Return what the operator is shown, by what was checked."""
    result = app.test_cli_runner().invoke(args=["health"])
    shown = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    assert result.exit_code == int(set(shown.values()) != {"ok"})
    return shown


@pytest.fixture(autouse=True)
def working(app: Flask) -> None:
    """A worker that showed a sign of life."""
    with app.app_context():
        remember_time("sign of life")


def test_all_is_well(app: Flask, visitor: Visitor):
    assert visitor.get("/readyz").get_json() == OK
    assert run_health(app) == dict.fromkeys(health.CHECKS, "ok")


def test_migrations_that_were_not_applied_stop_visitors(app: Flask, visitor: Visitor):
    with app.app_context():
        versions = db.session.scalars(text("SELECT version_num FROM alembic_version"))
        applied = list(versions)
        db.session.execute(text("DELETE FROM alembic_version"))
        db.session.commit()
    try:
        answer = visitor.get("/readyz")
        checks = run_health(app)
    finally:
        with app.app_context():
            for version in applied:
                add = text("INSERT INTO alembic_version VALUES (:version)")
                db.session.execute(add, {"version": version})
            db.session.commit()
    assert answer.status_code == 503
    assert answer.get_json() == UNAVAILABLE
    assert checks["migrations"] == "migrations were not applied: run `flask prepare`"


def test_a_database_of_a_newer_release_serves_the_older_one(
    app: Flask, visitor: Visitor
):
    with app.app_context():
        db.session.execute(text("INSERT INTO alembic_version VALUES ('newer')"))
        db.session.commit()
    try:
        assert visitor.get("/readyz").get_json() == OK
    finally:
        with app.app_context():
            db.session.execute(
                text("DELETE FROM alembic_version WHERE version_num = 'newer'")
            )
            db.session.commit()


@contextmanager
def hanging(name: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A check that does not answer, until the block ends; the others are well."""
    answered = Event()
    for other in health.CHECKS:
        monkeypatch.setitem(health.CHECKS, other, lambda: None)
    monkeypatch.setitem(health.CHECKS, name, lambda: answered.wait(60) and None)
    try:
        yield
    finally:
        answered.set()
        health._running[name].result()  # the next test makes a check of its own


@pytest.mark.parametrize("name", [*health.REQUIRED, *health.OPTIONAL])
def test_a_check_that_hangs_ends_at_its_deadline(
    visitor: Visitor, monkeypatch: pytest.MonkeyPatch, name: str
):
    monkeypatch.setattr(health, "DEADLINE", 0.5)
    with hanging(name, monkeypatch):
        answer = visitor.get("/readyz")
    needed = name in health.REQUIRED
    assert answer.status_code == (503 if needed else 200)
    assert answer.get_json() == (UNAVAILABLE if needed else DEGRADED)


def test_a_check_that_hangs_holds_one_thread(
    visitor: Visitor, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(health, "DEADLINE", 0.1)
    start = time.monotonic()
    with hanging("database", monkeypatch):
        for _ in range(20):
            assert visitor.get("/readyz").get_json() == UNAVAILABLE
    assert time.monotonic() - start < 30


def test_checks_run_side_by_side(app: Flask, monkeypatch: pytest.MonkeyPatch):
    """Else those behind one that hangs had no time left."""
    all_run = Barrier(len(health.CHECKS), timeout=health.DEADLINE)
    for name in health.CHECKS:
        monkeypatch.setitem(health.CHECKS, name, lambda: all_run.wait() and None)
    assert run_health(app) == dict.fromkeys(health.CHECKS, "ok")


def test_a_degraded_service_reports_that_and_no_details(
    app: Flask, visitor: Visitor, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(limiter.storage, "check", lambda: False)
    answer = visitor.get("/readyz")
    assert (answer.status_code, answer.get_json()) == (200, DEGRADED)
    expected = "Redis does not respond: each process counts its own requests"
    assert run_health(app)["limiter"] == expected


def test_visitors_are_served_without_a_worker(
    app: Flask, visitor: Visitor, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(thresholds, "HEARTBEAT_AGE", timedelta(0))
    assert visitor.get("/readyz").get_json() == OK
    expected = "no worker is running: start one with `flask worker`"
    assert run_health(app)["worker"] == expected


def test_waiting_emails_are_shown(app: Flask, visitor: Visitor):
    with app.test_request_context():
        mail.send("A subject", "zoe@example.org", "A text")
        db.session.execute(
            update(OutgoingMail).values(created_at=utcnow() - timedelta(minutes=16))
        )
        db.session.commit()
    answer = visitor.get("/readyz")
    assert (answer.status_code, answer.get_json()) == (200, DEGRADED)
    assert run_health(app)["mail"].startswith("an email has been waiting since")
