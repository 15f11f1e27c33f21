"""The audit trail: each event has its place in the chain, and is never changed."""

from dataclasses import replace

import pytest
from flask import Flask
from sqlalchemy import select, text
from sqlalchemy.exc import DatabaseError

from bulwark.audit import checks, events, trail, verification
from bulwark.audit.trail import AuditLink
from bulwark.database import db
from tests.bulwark.audit.support import ROWS, fault, tamper
from tests.conftest import GOOD_PASSWORD, Visitor


def test_events_are_linked_in_the_order_of_their_commits(recorded: list[int]):
    links = db.session.scalars(select(AuditLink).order_by(AuditLink.position)).all()
    assert [link.event_id for link in links][-ROWS:] == recorded
    assert [link.position for link in links] == list(range(1, len(links) + 1))
    head = verification.verify()
    assert head == (links[-1].position, links[-1].mac)


def test_a_transaction_may_record_many_events(app: Flask, recorded: list[int]):
    for _ in range(3):
        events.record("session_expired")
    db.session.commit()
    head = verification.verify()
    assert head is not None
    assert head.position == ROWS + 3


def test_events_of_before_the_trail_are_taken_in(app: Flask, recorded: list[int]):
    tamper("DELETE FROM audit_chain")
    output = app.test_cli_runner().invoke(args=["prepare"]).output
    assert "started the audit trail with 6 earlier events" in output
    assert verification.verify() is not None


@pytest.mark.parametrize("table", ["security_events", "audit_chain"])
@pytest.mark.parametrize("statement", ["DELETE FROM {}", "UPDATE {} SET {} = {}"])
def test_the_database_refuses_to_change_the_trail(
    recorded: list[int], table: str, statement: str
):
    column = "id" if table == "security_events" else "position"
    with pytest.raises(DatabaseError, match="only ever added to"):
        db.session.execute(text(statement.format(table, column, column)))
    db.session.rollback()
    assert verification.verify() is not None


def test_what_can_not_be_recorded_does_not_happen(
    visitor: Visitor, app: Flask, person: str, monkeypatch: pytest.MonkeyPatch
):
    visitor.sign_in(person)
    with app.app_context():
        before = checks.state().rows
        users = app.extensions["security"].datastore.user_model
        stored = db.session.scalar(select(users.password))

    def fail(*_: object) -> None:
        raise DatabaseError("INSERT", {}, Exception("disk full"))

    monkeypatch.setattr(trail, "compute_mac", fail)
    new = "seven brass kettles whistle"
    form = {"new_password": new, "new_password_confirm": new}
    app.testing = False
    try:
        answer = visitor.submit("/change", {"password": GOOD_PASSWORD, **form})
    finally:
        app.testing = True
    assert answer.status_code in (500, 503)
    with app.app_context():
        assert checks.state().rows == before
        assert db.session.scalar(select(users.password)) == stored


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
    assert verification.verify() is not None
    use(new)
    assert fault().startswith("row 1 needs the key 'testing'")
