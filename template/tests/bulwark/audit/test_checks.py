"""Scheduled checks: they find what is new, and only their own results count."""

import json

import pytest
from flask import Flask
from sqlalchemy import select

from bulwark.audit import checks, events
from bulwark.audit.trail import AuditLink
from bulwark.database import db
from bulwark.jobs import queue
from tests.bulwark.audit.support import NEVER, ROWS, tamper


def test_a_worker_checks_what_is_new_and_remembers_what_it_found(
    app: Flask, recorded: list[int]
):
    checks.check.call_local()
    assert checks.state().fault == ""
    events.record("session_expired")
    db.session.commit()
    checks.check_new.call_local()
    state = checks.state()
    assert state.head.startswith(f"{ROWS + 1}:")
    assert state.checked is not None
    tamper(f"UPDATE security_events SET reason = 'x' WHERE id = {recorded[0]}")
    checks.check.call_local()
    assert checks.state().fault.startswith("row 1 is not as it was written")


@pytest.mark.parametrize("written", [b"{}", b"[" * 100_000, b"\xff", b"\x80\x05."])
def test_what_somebody_else_wrote_about_a_check_counts_for_nothing(
    app: Flask, recorded: list[int], written: bytes
):
    """Else whoever changes the trail could name a row from which on to check."""
    checks.check.call_local()
    tamper(f"UPDATE security_events SET reason = 'x' WHERE id = {recorded[0]}")
    queue.storage.put_data(checks.RESULT_KEY, written)
    assert checks.state().checked is None
    checks.check_new.call_local()
    assert checks.state().fault.startswith("row 1 is not as it was written")


def test_write_access_to_the_database_can_t_fake_a_check(
    app: Flask, recorded: list[int]
):
    tamper(f"UPDATE security_events SET reason = 'x' WHERE id = {recorded[0]}")
    newest = db.session.scalars(
        select(AuditLink).order_by(AuditLink.position.desc())
    ).first()
    assert newest
    head = f"{newest.position}:{newest.mac.hex()}"
    output = json.dumps(NEVER | {"head": head}).encode()
    queue.storage.put_data(checks.RESULT_KEY, output)
    checks.check_new.call_local()
    assert checks.state().fault.startswith("row 1 is not as it was written")
