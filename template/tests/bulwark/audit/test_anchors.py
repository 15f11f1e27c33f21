"""Anchors: they show that the end of the trail is missing, or is another one."""

from pathlib import Path

from sqlalchemy import update

from bulwark.audit import anchors, events, trail, verification
from bulwark.audit.events import SecurityEvent
from bulwark.database import db
from tests.bulwark.audit.support import ROWS, fault, tamper


def test_an_anchor_is_written_when_there_is_something_new(
    recorded: list[int], tmp_path: Path
):
    file = tmp_path / "anchors"
    anchors.anchor.call_local()
    anchors.anchor.call_local()
    assert len(file.read_text().splitlines()) == 1
    assert file.stat().st_mode & 0o777 == 0o600
    events.record("session_expired")
    db.session.commit()
    anchors.anchor.call_local()
    assert list(anchors.stored_anchors()) == [ROWS, ROWS + 1]


def test_the_anchor_reveals_rows_cut_off_the_end(recorded: list[int]):
    anchors.anchor.call_local()
    for table, column in (("security_events", "id"), ("audit_chain", "event_id")):
        tamper(f"DELETE FROM {table} WHERE {column} IN ({recorded[4]}, {recorded[5]})")
    assert verification.verify() is not None  # the chain alone can't tell
    output = fault(anchors=anchors.stored_anchors())
    assert output == "rows after 4 are gone: an anchor names row 6"


def test_the_anchor_reveals_a_rewritten_trail(
    recorded: list[int],
):
    anchors.anchor.call_local()
    tamper("DELETE FROM audit_chain")
    with trail.unlocked():
        db.session.execute(
            update(SecurityEvent)
            .where(SecurityEvent.id == recorded[5])
            .values(reason="nothing happened")
        )
    trail.adopt()
    db.session.commit()
    assert verification.verify() is not None
    assert fault(anchors=anchors.stored_anchors()) == "row 6 does not match its anchor"
