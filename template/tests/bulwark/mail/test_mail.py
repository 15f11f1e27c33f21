"""Mail: none is lost, none is readable at rest, and no visitor waits for it."""

import smtplib
import ssl
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult
from flask import Flask, Response
from sqlalchemy import func, select, update

from bulwark import crypto, mail
from bulwark.database import db, utcnow
from bulwark.jobs import queue
from bulwark.ops import dev_certificate
from bulwark.settings import urls
from tests.bulwark.conftest import Written
from tests.conftest import Visitor


class Inbox:
    """What a real mail server took."""

    def __init__(self, answer: str = "250 OK") -> None:
        self.answer = answer
        self.letters: list[Any] = []

    async def handle_DATA(self, server, session, envelope) -> str:  # noqa: N802
        if self.answer.startswith("250"):
            self.letters.append(envelope)
        return self.answer


@contextmanager
def smtp_server(inbox: Inbox, port: int = 0, **options: Any) -> Iterator[int]:
    """Run a mail server on this machine; yield its port."""
    controller = Controller(
        inbox, hostname="localhost", port=port or free_port(), **options
    )
    controller.start()
    try:
        yield controller.port
    finally:
        controller.stop()


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def mail_to(app: Flask, monkeypatch: pytest.MonkeyPatch):
    """Point the service at a mail server."""

    def point(url: str) -> None:
        settings = replace(app.extensions["bulwark"], mail_url=url)
        monkeypatch.setitem(app.extensions, "bulwark", settings)

    return point


def waiting() -> int:
    return db.session.scalar(select(func.count()).select_from(mail.OutgoingMail)) or 0


def make_due() -> None:
    """Let the time pass that a delayed mail waits."""
    db.session.execute(update(mail.OutgoingMail).values(due_at=utcnow()))
    db.session.commit()


def send(recipient: str = "zoe@example.org") -> None:
    mail.send("Hello", recipient, "First.\n\nhttps://localhost/confirm/abc")
    db.session.commit()


def test_a_mail_has_a_text_and_a_page_made_from_it(visitor: Visitor, app: Flask):
    with app.app_context():
        send()
    letter = visitor.letters()[0]
    text, html = letter.get_body(("plain",)), letter.get_body(("html",))
    assert text
    assert html
    assert "https://localhost/confirm/abc" in text.get_content()
    assert 'href="https://localhost/confirm/abc"' in html.get_content()
    assert letter["To"] == "zoe@example.org"
    assert letter["Auto-Submitted"] == "auto-generated"


def test_an_address_can_not_add_a_header(app: Flask):
    with (
        app.app_context(),
        pytest.raises(ValueError, match=r"(?i)line|invalid|linefeed"),
    ):
        send("zoe@example.org\r\nBcc: all@example.org")


def test_a_stored_mail_shows_nothing(visitor: Visitor, app: Flask, person: str):
    visitor.submit("/reset", {"email": person})
    with app.app_context():
        sealed = db.session.scalars(select(mail.OutgoingMail.sealed_message)).one()
        assert person.encode() not in sealed
        assert b"/reset/" not in sealed


def test_a_mail_that_was_moved_to_another_row_is_not_sent(
    visitor: Visitor, app: Flask, caplog: pytest.LogCaptureFixture
):
    with app.app_context():
        send()
        db.session.execute(update(mail.OutgoingMail).values(id=uuid.uuid4()))
        db.session.commit()
    assert visitor.letters() == []
    assert "sys_mail_dropped" in caplog.text


def test_a_sign_up_succeeds_while_the_mail_server_is_away_and_the_mail_follows(
    visitor: Visitor, app: Flask, mail_to
):
    inbox, port = Inbox(), free_port()
    mail_to(f"smtp://localhost:{port}")
    started = time.perf_counter()
    visitor.submit("/register", {"email": "new@example.org"})
    assert time.perf_counter() - started < mail.TIMEOUT
    with app.app_context():
        mail.deliver_due()
        assert waiting() == 1
        mail.deliver_due()  # not due yet
        assert inbox.letters == []
        with smtp_server(inbox, port):
            make_due()
            mail.deliver_due()
        assert waiting() == 0
    assert inbox.letters[0].rcpt_tos == ["new@example.org"]


def test_a_password_beyond_ascii_signs_in(app: Flask, mail_to):
    tried = []

    def check(server, session, envelope, mechanism, data) -> AuthResult:
        tried.append((mechanism, data.login, data.password))
        right = data.password == "päss#wörd".encode()
        return AuthResult(success=right, handled=right)

    inbox = Inbox()
    options: dict[str, Any] = {"authenticator": check, "auth_require_tls": False}
    with app.app_context(), smtp_server(inbox, **options) as port:
        mail_to(f"smtp://user:p%C3%A4ss#wörd@localhost:{port}")
        send()
        mail.deliver_due()
        assert waiting() == 0
        mail_to(f"smtp://user:wröng@localhost:{port}")
        send()
        mail.deliver_due()
        assert waiting() == 1
    assert tried[0] == ("PLAIN", b"user", "päss#wörd".encode())


def test_each_failure_waits_longer_than_the_last(app: Flask, mail_to):
    mail_to(f"smtp://localhost:{free_port()}")
    waits = []
    with app.app_context():
        send()
        for _ in range(7):
            make_due()
            mail.deliver_due()
            due = db.session.scalars(select(mail.OutgoingMail.due_at)).one()
            waits.append(round((due - utcnow()).total_seconds()))
    assert waits == pytest.approx([10, 30, 60, 120, 300, 300, 300], abs=5)


def test_a_mail_is_given_up_after_five_days(app: Flask, mail_to, caplog):
    mail_to(f"smtp://localhost:{free_port()}")
    with app.app_context():
        send()
        long_ago = utcnow() - timedelta(days=5, minutes=1)
        db.session.execute(update(mail.OutgoingMail).values(created_at=long_ago))
        mail.deliver_due()
        assert waiting() == 0
    assert "sys_mail_dropped" in caplog.text


@pytest.mark.parametrize(("answer", "left"), [("451 later", 1), ("554 never", 0)])
def test_a_refusal_counts_only_when_it_is_final(
    app: Flask, mail_to, answer: str, left: int
):
    with app.app_context(), smtp_server(Inbox(answer)) as port:
        mail_to(f"smtp://localhost:{port}")
        send()
        mail.deliver_due()
        assert waiting() == left


@pytest.mark.parametrize(("code", "left"), [(450, 1), (550, 0)])
def test_an_unknown_recipient_counts_only_when_it_is_final(
    app: Flask, mail_to, code: int, left: int
):
    class Stranger(Inbox):
        async def handle_RCPT(self, server, session, envelope, address, options):  # noqa: N802
            return f"{code} unknown"

    with app.app_context(), smtp_server(Stranger()) as port:
        mail_to(f"smtp://localhost:{port}")
        send()
        mail.deliver_due()
        assert waiting() == left


@pytest.mark.parametrize(
    ("answer", "delivered"),
    [("450 greylisted", ["zoe", "eve"]), ("421 closing", ["zoe"])],
)
def test_a_recipient_who_is_refused_for_now_holds_up_nobody_else(
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
        mail.deliver_due()
        assert waiting() == 3 - len(delivered)
    receivers = [letter.rcpt_tos[0].partition("@")[0] for letter in inbox.letters]
    assert receivers == delivered


def test_the_mail_server_is_greeted_with_the_domain_of_the_service(
    app: Flask, monkeypatch: pytest.MonkeyPatch
):
    """Many refuse "localhost" and bare names: frappe/frappe#28079."""
    names: list[str] = []

    class Strict(Inbox):
        async def handle_EHLO(self, server, session, envelope, hostname, responses):  # noqa: N802
            names.append(hostname)
            session.host_name = hostname
            return responses

    with app.app_context(), smtp_server(Strict()) as port:
        settings = replace(
            app.extensions["bulwark"],
            domain="shop.example.com",
            mail_url=f"smtp://localhost:{port}",
        )
        monkeypatch.setitem(app.extensions, "bulwark", settings)
        send()
        mail.deliver_due()
        assert waiting() == 0
    assert set(names) == {"shop.example.com"}


def test_a_final_refusal_loses_that_mail_alone_and_is_an_event(
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
        mail.deliver_due()
        assert waiting() == 0
    receivers = [letter.rcpt_tos[0] for letter in inbox.letters]
    assert receivers == ["zoe@example.org", "eve@example.org"]
    (event,) = [line for line in written.lines() if line["event"] == "sys_mail_dropped"]
    assert event["level"] == "error"


def test_a_mail_is_claimed_by_one_worker_only(app: Flask):
    with app.app_context():
        send()
        first = mail._claim()
        assert first is not None
        assert mail._claim() is None


def test_a_claim_that_another_worker_took_moves_on(app: Flask, monkeypatch):
    with app.app_context():
        send()
        real = db.session.scalar
        taken: list[object] = []

        def meanwhile(statement: Any) -> Any:
            found = real(statement)
            if found is not None and not taken:
                taken.append(found)
                moved = utcnow() + mail.LEASE
                others = update(mail.OutgoingMail).values(due_at=moved)
                db.session.execute(
                    others, execution_options={"synchronize_session": False}
                )
            return found

        monkeypatch.setattr(db.session, "scalar", meanwhile)
        assert mail._claim() is None


def tls_context(tmp_path: Path) -> ssl.SSLContext:
    dev_certificate.make(tmp_path, "mail server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "localhost.pem", tmp_path / "localhost.key")
    return context


@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
@pytest.mark.parametrize("trusted", [True, False])
def test_a_mail_server_must_prove_who_it_is(
    app: Flask, mail_to, tmp_path: Path, monkeypatch, scheme: str, trusted: bool
):
    inbox, context = Inbox(), tls_context(tmp_path)
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    if scheme == "smtp":
        server = smtp_server(inbox, tls_context=context, require_starttls=True)
    else:
        server = smtp_server(inbox, ssl_context=context)
    with app.app_context(), server as port:
        mail_to(f"{scheme}://localhost:{port}")
        send()
        mail.deliver_due()
        assert waiting() == (0 if trusted else 1)
    assert len(inbox.letters) == (1 if trusted else 0)


def test_a_server_elsewhere_without_tls_gets_no_mail(app: Flask, monkeypatch):
    with app.app_context(), smtp_server(Inbox()) as port:
        monkeypatch.setattr("bulwark.mail.is_local", lambda _: False)
        with (
            pytest.raises(smtplib.SMTPNotSupportedError),
            mail._connection(urls.mail_server(f"smtp://localhost:{port}")),
        ):
            pass


def test_the_password_of_the_mail_server_may_hold_any_character(
    app: Flask, mail_to, tmp_path: Path, monkeypatch
):
    seen = []

    def check(server, session, envelope, mechanism, data):
        from aiosmtpd.smtp import AuthResult

        seen.append((data.login, data.password))
        return AuthResult(success=True)

    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    context = tls_context(tmp_path)
    options: dict[str, Any] = {
        "tls_context": context,
        "authenticator": check,
        "auth_required": True,
    }
    with app.app_context(), smtp_server(Inbox(), **options) as port:
        mail_to(f"smtp://zo%40e:p%3A%2F%3Fw@localhost:{port}")
        send()
        mail.deliver_due()
        assert waiting() == 0
    assert seen == [(b"zo@e", b"p:/?w")]


def test_a_queue_that_is_away_loses_no_mail(
    app: Flask, visitor: Visitor, monkeypatch, caplog
):
    def away(*_: Any) -> None:
        raise ConnectionError

    monkeypatch.setattr(queue.storage, "enqueue", away)
    with app.app_context():
        send()
    assert "queue_unreachable" in caplog.text
    assert len(visitor.letters()) == 1


def test_a_delayed_mail_is_tried_again_when_its_time_has_come(
    app: Flask, mail_to, mailbox: Path
):
    mail_to(f"smtp://localhost:{free_port()}")
    with app.app_context():
        send()
        queue.flush()
        mail.deliver_due()
    (task,) = queue.pending()
    assert task.name == "deliver_mail"
    assert not queue.ready_to_run(task)
    queue.execute(task)  # a worker that is too early puts it aside
    assert [later.name for later in queue.scheduled()] == ["deliver_mail"]


def test_a_mail_goes_with_what_it_reports_or_not_at_all(app: Flask):
    with app.app_context():
        mail.send("Hello", "zoe@example.org", "You have signed up.")
        db.session.rollback()
        assert waiting() == 0


def test_a_request_that_failed_inside_sends_no_mail(app: Flask):
    with app.app_context():
        mail.send("Hello", "zoe@example.org", "You have signed up.")
        mail._commit(Response(status=500))
        db.session.rollback()
        assert waiting() == 0


def test_the_worker_delivers_what_the_commit_wakes_it_for(app: Flask, mailbox: Path):
    with app.app_context():
        send()
    task = queue.dequeue()
    queue.execute(task)
    assert len(list(mailbox.glob("*.eml"))) == 1


def test_each_minute_the_worker_looks_for_mail_that_waits(app: Flask, mailbox: Path):
    with app.app_context():
        send()
    queue.flush()
    due = [
        task for task in queue.read_periodic(utcnow()) if "mail" in type(task).__name__
    ]
    for task in due:
        queue.execute(task)
    assert len(list(mailbox.glob("*.eml"))) == 1


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("ZOE@Example.ORG", "zoe@example.org"),
        ("a@bücher.example", "a@xn--bcher-kva.example"),
    ],
)
def test_an_address_has_one_spelling(app: Flask, typed: str, kept: str):
    with app.app_context():
        assert mail.OutboxMailUtil(app).validate(typed) == kept


def test_what_is_no_address_is_refused(app: Flask):
    from flask_security.mail_util import EmailValidateException

    with app.app_context(), pytest.raises(EmailValidateException):
        mail.OutboxMailUtil(app).normalize("zoe@")


def test_a_mail_outside_a_request_is_kept_by_its_caller(app: Flask):
    with app.app_context():
        mail.OutboxMailUtil(app).send_mail(
            "t", "s", "zoe@example.org", "", "text", None
        )
        assert waiting() == 1
        db.session.rollback()
        assert waiting() == 0


def test_a_sealed_mail_survives_a_new_key(app: Flask, visitor: Visitor, monkeypatch):
    with app.app_context():
        send()
    old = app.extensions["bulwark"]
    keys = {"newer": b"fedcba9876543210" * 2, **old.encryption_keys}
    monkeypatch.setitem(app.extensions, "bulwark", replace(old, encryption_keys=keys))
    assert len(visitor.letters()) == 1
    assert crypto.encrypt(b"x", keys=keys, place="p").startswith(b"newer:")
