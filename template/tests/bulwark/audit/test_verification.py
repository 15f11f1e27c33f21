"""Verification: what was changed, removed, moved or added by hand is found."""

from datetime import timedelta

import pytest
from sqlalchemy import update

from bulwark.audit import trail
from bulwark.audit.events import SecurityEvent
from bulwark.audit.trail import AuditLink
from bulwark.database import db, utcnow
from tests.bulwark.audit.support import ROWS, fault, tamper


@pytest.mark.parametrize(
    "change",
    [
        "reason = 'another'",
        "name = 'session_revoked'",
        "user_id = 7",
        "actor_id = 7",
        "address = '192.0.2.1'",
        "details = '{\"a\": 1}'",
        "method = 'GET'",
        "request_id = 'x'",
    ],
)
def test_a_changed_event_is_named(recorded: list[int], change: str):
    tamper(f"UPDATE security_events SET {change} WHERE id = {recorded[2]}")
    assert fault().startswith("row 3 is not as it was written: event")


def test_a_changed_moment_is_named(recorded: list[int]):
    with trail.unlocked():
        db.session.execute(
            update(SecurityEvent)
            .where(SecurityEvent.id == recorded[3])
            .values(at=utcnow() - timedelta(days=1))
        )
    db.session.commit()
    assert fault().startswith("row 4 is not as it was written")


def test_a_deleted_event_is_named(recorded: list[int]):
    tamper(f"DELETE FROM security_events WHERE id = {recorded[1]}")
    assert fault() == f"row 2 is gone: event {recorded[1]} was deleted"


def test_deleted_rows_are_named(recorded: list[int]):
    for table, column in (("security_events", "id"), ("audit_chain", "event_id")):
        tamper(f"DELETE FROM {table} WHERE {column} IN ({recorded[2]}, {recorded[3]})")
    assert fault() == "rows 3 to 4 are gone: the next one is 5"


def test_rows_that_changed_places_are_named(recorded: list[int]):
    tamper(
        "UPDATE audit_chain SET position = 99 WHERE position = 2",
        "UPDATE audit_chain SET position = 2 WHERE position = 3",
        "UPDATE audit_chain SET position = 3 WHERE position = 99",
    )
    assert fault().startswith("row 2 is not as it was written")


def test_an_event_that_nobody_recorded_is_named(recorded: list[int]):
    tamper(
        "INSERT INTO security_events (id, at, name, details)"
        " VALUES (100001, CURRENT_TIMESTAMP, 'authn_logout', '{}')"
    )
    assert fault() == "event 100001, authn_logout, has no row: it was added by hand"


def test_a_link_made_without_the_key_is_named(recorded: list[int]):
    with trail.unlocked():
        db.session.execute(
            update(AuditLink).where(AuditLink.position == ROWS).values(mac=bytes(32))
        )
    db.session.commit()
    assert fault().startswith("row 6 is not as it was written")
