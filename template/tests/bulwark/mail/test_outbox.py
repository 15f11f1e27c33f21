"""The outbox: no email is lost, and none is readable at rest."""

import time
import uuid
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import select, update

from bulwark import crypto
from bulwark.database import db, utcnow
from bulwark.jobs import queue
from bulwark.mail import outbox, smtp
from tests.bulwark.conftest import Written
from tests.bulwark.mail.conftest import (
    Inbox,
    free_port,
    make_due,
    send,
    smtp_server,
    waiting,
)
from tests.conftest import Visitor


def test_a_stored_email_shows_nothing(visitor: Visitor, app: Flask, person: str):
    visitor.submit("/reset", {"email": person})
    with app.app_context():
        sealed = db.session.scalars(select(outbox.OutgoingMail.sealed_message)).one()
        assert person.encode() not in sealed
        assert b"/reset/" not in sealed


def test_an_email_that_was_moved_to_another_row_is_not_sent(
    visitor: Visitor, app: Flask, caplog: pytest.LogCaptureFixture
):
    with app.app_context():
        send()
        db.session.execute(update(outbox.OutgoingMail).values(id=uuid.uuid4()))
        db.session.commit()
    assert visitor.letters() == []
    assert "sys_mail_dropped" in caplog.text


@pytest.mark.usefixtures("public_sign_up")
def test_a_sign_up_succeeds_while_the_mail_server_is_down_and_the_email_follows(
    visitor: Visitor, app: Flask, mail_to
):
    inbox, port = Inbox(), free_port()
    mail_to(f"smtp://localhost:{port}")
    started = time.perf_counter()
    visitor.submit("/register", {"email": "new@example.org"})
    assert time.perf_counter() - started < smtp.TIMEOUT
    with app.app_context():
        outbox.deliver_due()
        assert waiting() == 1
        outbox.deliver_due()  # not due yet
        assert inbox.letters == []
        with smtp_server(inbox, port):
            make_due()
            outbox.deliver_due()
        assert waiting() == 0
    assert inbox.letters[0].rcpt_tos == ["new@example.org"]


def test_each_failure_waits_longer_than_the_last(app: Flask, mail_to):
    mail_to(f"smtp://localhost:{free_port()}")
    waits = []
    with app.app_context():
        send()
        for _ in range(7):
            make_due()
            outbox.deliver_due()
            due = db.session.scalars(select(outbox.OutgoingMail.due_at)).one()
            waits.append(round((due - utcnow()).total_seconds()))
    assert waits == pytest.approx([10, 30, 60, 120, 300, 300, 300], abs=5)


def test_an_email_is_dropped_after_five_days(app: Flask, mail_to, caplog):
    mail_to(f"smtp://localhost:{free_port()}")
    with app.app_context():
        send()
        long_ago = utcnow() - timedelta(days=5, minutes=1)
        db.session.execute(update(outbox.OutgoingMail).values(created_at=long_ago))
        outbox.deliver_due()
        assert waiting() == 0
    assert "sys_mail_dropped" in caplog.text


@pytest.mark.parametrize(
    ("answer", "delivered"),
    [("450 greylisted", ["zoe", "eve"]), ("421 closing", ["zoe"])],
)
def test_a_recipient_that_is_rejected_for_now_delays_no_other(
    app: Flask, mail_to, answer: str, delivered: list[str]
):
    class Greylisting(Inbox):
        async def handle_RCPT(self, server, session, envelope, address, options):  # noqa: N802
            if address.startswith("ada"):
                return answer
            envelope.rcpt_tos.append(address)
            return "250 OK"

    inbox = Greylisting()
    with app.app_context(), smtp_server(inbox) as port:
        mail_to(f"smtp://localhost:{port}")
        for name in ("zoe", "ada", "eve"):
            send(f"{name}@example.org")
        outbox.deliver_due()
        assert waiting() == 3 - len(delivered)
    receivers = [letter.rcpt_tos[0].partition("@")[0] for letter in inbox.letters]
    assert receivers == delivered


def test_a_final_refusal_loses_that_email_alone_and_is_an_event(
    app: Flask, mail_to, written: Written
):
    class Picky(Inbox):
        async def handle_DATA(self, server, session, envelope) -> str:  # noqa: N802
            refused = envelope.rcpt_tos == ["ada@example.org"]
            self.answer = "554 5.6.0 malformed" if refused else "250 OK"
            return await super().handle_DATA(server, session, envelope)

    inbox = Picky()
    with app.app_context(), smtp_server(inbox) as port:
        mail_to(f"smtp://localhost:{port}")
        for name in ("zoe", "ada", "eve"):
            send(f"{name}@example.org")
        outbox.deliver_due()
        assert waiting() == 0
    receivers = [letter.rcpt_tos[0] for letter in inbox.letters]
    assert receivers == ["zoe@example.org", "eve@example.org"]
    (event,) = [line for line in written.lines() if line["event"] == "sys_mail_dropped"]
    assert event["level"] == "error"


def test_an_email_is_claimed_by_one_worker_only(app: Flask):
    with app.app_context():
        send()
        first = outbox._claim()
        assert first is not None
        assert outbox._claim() is None


def test_a_claim_that_another_worker_took_moves_on(app: Flask, monkeypatch):
    with app.app_context():
        send()
        real = db.session.scalar
        taken: list[object] = []

        def meanwhile(statement: Any) -> Any:
            found = real(statement)
            if found is not None and not taken:
                taken.append(found)
                moved = utcnow() + outbox.LEASE
                others = update(outbox.OutgoingMail).values(due_at=moved)
                db.session.execute(
                    others, execution_options={"synchronize_session": False}
                )
            return found

        monkeypatch.setattr(db.session, "scalar", meanwhile)
        assert outbox._claim() is None


def test_a_queue_that_is_down_loses_no_email(
    app: Flask, visitor: Visitor, monkeypatch, caplog
):
    def down(*_: Any) -> None:
        raise ConnectionError

    monkeypatch.setattr(queue.storage, "enqueue", down)
    with app.app_context():
        send()
    assert "queue_unreachable" in caplog.text
    assert len(visitor.letters()) == 1


def test_a_delayed_email_is_retried_when_it_is_due(app: Flask, mail_to, mailbox: Path):
    mail_to(f"smtp://localhost:{free_port()}")
    with app.app_context():
        send()
        queue.flush()
        outbox.deliver_due()
    (task,) = queue.pending()
    assert task.name == "deliver_mail"
    assert not queue.ready_to_run(task)
    queue.execute(task)  # a worker that is too early puts it aside
    assert [later.name for later in queue.scheduled()] == ["deliver_mail"]


def test_a_commit_wakes_the_worker_which_delivers(app: Flask, mailbox: Path):
    with app.app_context():
        send()
    task = queue.dequeue()
    queue.execute(task)
    assert len(list(mailbox.glob("*.eml"))) == 1


def test_each_minute_the_worker_looks_for_waiting_emails(app: Flask, mailbox: Path):
    with app.app_context():
        send()
    queue.flush()
    due = [
        task for task in queue.read_periodic(utcnow()) if "mail" in type(task).__name__
    ]
    for task in due:
        queue.execute(task)
    assert len(list(mailbox.glob("*.eml"))) == 1


def test_an_encrypted_email_survives_a_new_key(
    app: Flask, visitor: Visitor, monkeypatch
):
    with app.app_context():
        send()
    old = app.extensions["bulwark"]
    keys = {"newer": b"fedcba9876543210" * 2, **old.encryption_keys}
    monkeypatch.setitem(app.extensions, "bulwark", replace(old, encryption_keys=keys))
    assert len(visitor.letters()) == 1
    assert crypto.encrypt(b"x", keys=keys, place="p").startswith(b"newer:")
