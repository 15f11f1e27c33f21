"""Pruning: old rows are deleted, and the rest can still be verified."""

from dataclasses import replace
from datetime import timedelta

import pytest
from flask import Flask
from sqlalchemy import select, update

from bulwark.audit import checks, pruning, trail, verification
from bulwark.audit.events import SecurityEvent
from bulwark.database import db, utcnow
from tests.bulwark.audit.support import ROWS, fault, tamper


def test_old_rows_go_and_the_rest_stays_provable(app: Flask, recorded: list[int]):
    old = utcnow() - timedelta(days=400)
    tamper("DELETE FROM audit_chain")
    with trail.unlocked():
        db.session.execute(
            update(SecurityEvent).where(SecurityEvent.id < recorded[3]).values(at=old)
        )
    trail.adopt()
    db.session.commit()
    day = f"{utcnow() - timedelta(days=30):%Y-%m-%d}"
    prune = ["audit", "prune", "--before", day, "--reason", "older than a year"]
    output = app.test_cli_runner().invoke(args=prune).stdout
    assert output == "Deleted the rows up to 3.\n"
    head = verification.verify()
    assert head is not None
    assert head.position == ROWS + 1  # it records what was deleted
    tamper(f"DELETE FROM security_events WHERE id = {recorded[3]}")
    assert fault() == f"row 4 is gone: event {recorded[3]} was deleted"
    assert "nothing was deleted" in app.test_cli_runner().invoke(args=prune).output


def test_rows_go_by_themselves_after_the_days_of_the_setting(
    app: Flask, recorded: list[int], monkeypatch: pytest.MonkeyPatch
):
    later = utcnow() + timedelta(days=400)
    monkeypatch.setattr(pruning, "utcnow", lambda: later)
    pruning.prune_expired.call_local()
    assert checks.state().rows == ROWS  # forever, unless a setting limits it
    settings = replace(app.extensions["bulwark"], audit_days=365)
    monkeypatch.setitem(app.extensions, "bulwark", settings)
    pruning.prune_expired.call_local()
    left = db.session.scalars(select(SecurityEvent).order_by(SecurityEvent.id)).all()
    assert [row.reason for row in left] == [f"event {ROWS}", "APP_AUDIT_DAYS"]
    tamper(f"UPDATE security_events SET reason = 'x' WHERE id = {left[1].id}")
    pruning.prune_expired.call_local()
    assert fault().startswith(f"row {ROWS + 1} is not as it was written")


def test_nothing_old_is_nothing_to_delete(app: Flask, recorded: list[int]):
    prune = ["audit", "prune", "--before", "2020-01-01", "--reason", "old"]
    output = app.test_cli_runner().invoke(args=prune).stdout
    assert output == "No rows are that old.\n"
