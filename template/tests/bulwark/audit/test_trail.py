"""The audit trail: what was changed, removed, moved or added by hand is found."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy import select, text, update
from sqlalchemy.exc import DatabaseError

from bulwark.audit import events, trail
from bulwark.audit.events import SecurityEvent
from bulwark.audit.trail import AuditLink
from bulwark.database import db, utcnow
from bulwark.jobs import queue
from tests.conftest import GOOD_PASSWORD, Visitor

ROWS = 6
NEVER = {"fault": "", "head": "", "at": "2026-01-01T00:00:00+00:00"}


@pytest.fixture
def recorded(
    app: Flask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[list[int]]:
    """The ids of six events, each of a transaction of its own."""
    anchors = str(tmp_path / "anchors")
    settings = replace(app.extensions["bulwark"], audit_anchors=anchors)
    monkeypatch.setitem(app.extensions, "bulwark", settings)
    with app.app_context():
        made = []
        for number in range(ROWS):
            new = events.record("session_expired", reason=f"event {number + 1}")
            db.session.commit()
            made.append(new.id)
        yield made
        db.session.rollback()
    queue.put(trail.NOTE, NEVER)


def tamper(*statements: str) -> None:
    """Change the tables as somebody who may do anything in the database."""
    with trail.unlocked():
        for statement in statements:
            db.session.execute(text(statement))
    db.session.commit()
    db.session.expire_all()


def fault(**options: object) -> str:
    """Return what is found."""
    with pytest.raises(trail.ChainBrokenError) as raised:
        trail.verify(**options)  # type: ignore[arg-type]
    return str(raised.value)


def test_events_are_linked_in_the_order_of_their_commits(recorded: list[int]):
    links = db.session.scalars(select(AuditLink).order_by(AuditLink.position)).all()
    assert [link.event_id for link in links][-ROWS:] == recorded
    assert [link.position for link in links] == list(range(1, len(links) + 1))
    head = trail.verify()
    assert head == (links[-1].position, links[-1].mac)


def test_a_transaction_may_record_many_events(app: Flask, recorded: list[int]):
    for _ in range(3):
        events.record("session_expired")
    db.session.commit()
    head = trail.verify()
    assert head is not None
    assert head.position == ROWS + 3


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


def test_rows_cut_off_the_end_are_betrayed_by_the_anchor(recorded: list[int]):
    trail.anchor.call_local()
    for table, column in (("security_events", "id"), ("audit_chain", "event_id")):
        tamper(f"DELETE FROM {table} WHERE {column} IN ({recorded[4]}, {recorded[5]})")
    assert trail.verify() is not None  # the chain alone can't tell
    said = fault(anchors=trail.anchors())
    assert said == "rows after 4 are gone: an anchor names row 6"


def test_a_trail_that_was_written_anew_is_not_the_one_of_the_anchor(
    recorded: list[int],
):
    trail.anchor.call_local()
    tamper("DELETE FROM audit_chain")
    with trail.unlocked():
        db.session.execute(
            update(SecurityEvent)
            .where(SecurityEvent.id == recorded[5])
            .values(reason="nothing happened")
        )
    trail.adopt()
    db.session.commit()
    assert trail.verify() is not None
    assert fault(anchors=trail.anchors()) == "row 6 does not match its anchor"


def test_an_anchor_is_written_when_there_is_something_new(
    recorded: list[int], tmp_path: Path
):
    file = tmp_path / "anchors"
    trail.anchor.call_local()
    trail.anchor.call_local()
    assert len(file.read_text().splitlines()) == 1
    assert file.stat().st_mode & 0o777 == 0o600
    events.record("session_expired")
    db.session.commit()
    trail.anchor.call_local()
    assert list(trail.anchors()) == [ROWS, ROWS + 1]


@pytest.mark.parametrize("table", ["security_events", "audit_chain"])
@pytest.mark.parametrize("statement", ["DELETE FROM {}", "UPDATE {} SET {} = {}"])
def test_the_database_refuses_to_change_the_trail(
    recorded: list[int], table: str, statement: str
):
    column = "id" if table == "security_events" else "position"
    with pytest.raises(DatabaseError, match="only ever added to"):
        db.session.execute(text(statement.format(table, column, column)))
    db.session.rollback()
    assert trail.verify() is not None


def test_what_can_not_be_recorded_does_not_happen(
    visitor: Visitor, app: Flask, person: str, monkeypatch: pytest.MonkeyPatch
):
    visitor.sign_in(person)
    with app.app_context():
        before = trail.state().rows
        users = app.extensions["security"].datastore.user_model
        stored = db.session.scalar(select(users.password))

    def fail(*_: object) -> None:
        raise DatabaseError("INSERT", {}, Exception("disk full"))

    monkeypatch.setattr(trail, "_mac", fail)
    new = "seven brass kettles whistle"
    form = {"new_password": new, "new_password_confirm": new}
    app.testing = False
    try:
        answer = visitor.submit("/change", {"password": GOOD_PASSWORD, **form})
    finally:
        app.testing = True
    assert answer.status_code in (500, 503)
    with app.app_context():
        assert trail.state().rows == before
        assert db.session.scalar(select(users.password)) == stored


def test_old_rows_go_and_the_rest_stays_provable(app: Flask, recorded: list[int]):
    moved = utcnow() - timedelta(days=400)
    tamper("DELETE FROM audit_chain")
    with trail.unlocked():
        db.session.execute(
            update(SecurityEvent).where(SecurityEvent.id < recorded[3]).values(at=moved)
        )
    trail.adopt()
    db.session.commit()
    day = f"{utcnow() - timedelta(days=30):%Y-%m-%d}"
    prune = ["audit", "prune", "--before", day, "--reason", "older than a year"]
    said = app.test_cli_runner().invoke(args=prune).stdout
    assert said == "Deleted the rows up to 3.\n"
    head = trail.verify()
    assert head is not None
    assert head.position == ROWS + 1  # which says what was deleted
    tamper(f"DELETE FROM security_events WHERE id = {recorded[3]}")
    assert fault() == f"row 4 is gone: event {recorded[3]} was deleted"
    assert "nothing was deleted" in app.test_cli_runner().invoke(args=prune).output


def test_rows_go_by_themselves_after_the_days_of_the_setting(
    app: Flask, recorded: list[int], monkeypatch: pytest.MonkeyPatch
):
    later = utcnow() + timedelta(days=400)
    monkeypatch.setattr(trail, "utcnow", lambda: later)
    trail.forget.call_local()
    assert trail.state().rows == ROWS  # for ever, unless somebody says how long
    settings = replace(app.extensions["bulwark"], audit_days=365)
    monkeypatch.setitem(app.extensions, "bulwark", settings)
    trail.forget.call_local()
    left = db.session.scalars(select(SecurityEvent)).all()
    assert [row.reason for row in left] == [f"event {ROWS}", "APP_AUDIT_DAYS"]
    tamper(f"UPDATE security_events SET reason = 'x' WHERE id = {left[1].id}")
    trail.forget.call_local()
    assert fault().startswith(f"row {ROWS + 1} is not as it was written")


def test_nothing_old_is_nothing_to_delete(app: Flask, recorded: list[int]):
    prune = ["audit", "prune", "--before", "2020-01-01", "--reason", "old"]
    said = app.test_cli_runner().invoke(args=prune).stdout
    assert said == "No rows are that old.\n"


def test_the_operator_is_told_what_is_wrong(app: Flask, recorded: list[int]):
    run = app.test_cli_runner().invoke
    good = run(args=["audit", "verify"])
    assert good.exit_code == 0
    assert "6 rows, the last one 6:" in good.output
    anchor = good.output.rpartition(" ")[2].rstrip(".\n")
    assert run(args=["audit", "verify", "--anchor", anchor]).exit_code == 0
    assert "is not ROW:MAC" in run(args=["audit", "verify", "--anchor", "6"]).output
    tamper(f"UPDATE security_events SET reason = 'x' WHERE id = {recorded[0]}")
    bad = run(args=["audit", "verify"])
    assert bad.exit_code == 1
    assert "broken: row 1 is not as it was written" in bad.output


def test_rows_are_exported_with_their_links(app: Flask, recorded: list[int]):
    events.record("authn_logout", reason="another kind")
    db.session.commit()
    run = app.test_cli_runner().invoke
    today = f"{utcnow():%Y-%m-%d}"
    said = run(args=["audit", "export", "--name", "session_expired", "--from", today])
    rows = [json.loads(line) for line in said.output.splitlines()]
    assert [row["reason"] for row in rows] == [f"event {n + 1}" for n in range(ROWS)]
    links = db.session.scalars(select(AuditLink).order_by(AuditLink.position)).all()
    assert [row["mac"] for row in rows] == [link.mac.hex() for link in links[:ROWS]]


def test_a_worker_checks_what_is_new_and_remembers_what_it_found(
    app: Flask, recorded: list[int]
):
    trail.check.call_local()
    assert trail.state().fault == ""
    events.record("session_expired")
    db.session.commit()
    trail.check_new.call_local()
    state = trail.state()
    assert state.head.startswith(f"{ROWS + 1}:")
    assert state.checked is not None
    tamper(f"UPDATE security_events SET reason = 'x' WHERE id = {recorded[0]}")
    trail.check.call_local()
    assert trail.state().fault.startswith("row 1 is not as it was written")


@pytest.mark.parametrize("written", [b"{}", b"[" * 100_000, b"\xff", b"\x80\x05."])
def test_what_somebody_else_wrote_about_a_check_counts_for_nothing(
    app: Flask, recorded: list[int], written: bytes
):
    """Else whoever changes the trail could name a row from which on to check."""
    trail.check.call_local()
    tamper(f"UPDATE security_events SET reason = 'x' WHERE id = {recorded[0]}")
    queue.storage.put_data(trail.NOTE, written)
    assert trail.state().checked is None
    trail.check_new.call_local()
    assert trail.state().fault.startswith("row 1 is not as it was written")


def test_who_can_write_to_the_database_can_t_say_that_all_was_checked(
    app: Flask, recorded: list[int]
):
    tamper(f"UPDATE security_events SET reason = 'x' WHERE id = {recorded[0]}")
    newest = db.session.scalars(
        select(AuditLink).order_by(AuditLink.position.desc())
    ).first()
    assert newest
    head = f"{newest.position}:{newest.mac.hex()}"
    said = json.dumps(NEVER | {"head": head}).encode()
    queue.storage.put_data(trail.NOTE, said)
    trail.check_new.call_local()
    assert trail.state().fault.startswith("row 1 is not as it was written")


def test_a_key_that_took_over_goes_on_with_the_chain(
    app: Flask, recorded: list[int], monkeypatch: pytest.MonkeyPatch
):
    settings = app.extensions["bulwark"]
    new, old = {"newer": b"n" * 32}, settings.encryption_keys

    def use(keys: dict[str, bytes]) -> None:
        changed = replace(settings, encryption_keys=keys)
        monkeypatch.setitem(app.extensions, "bulwark", changed)

    use(new | old)
    events.record("session_expired")
    db.session.commit()
    assert trail.verify() is not None
    use(new)
    assert fault().startswith("row 1 needs the key 'testing'")


def test_events_of_before_the_trail_are_taken_in(app: Flask, recorded: list[int]):
    tamper("DELETE FROM audit_chain")
    said = app.test_cli_runner().invoke(args=["prepare"]).output
    assert "started the audit trail with 6 earlier events" in said
    assert trail.verify() is not None
