"""The connection to the mail server: TLS, authentication and refusals."""

import smtplib
import ssl
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import AuthResult
from flask import Flask

from bulwark.mail import outbox, smtp
from bulwark.ops import dev_certificate
from bulwark.settings import urls
from tests.bulwark.mail.conftest import Inbox, send, smtp_server, waiting


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
        outbox.deliver_due()
        assert waiting() == 0
        mail_to(f"smtp://user:wröng@localhost:{port}")
        send()
        outbox.deliver_due()
        assert waiting() == 1
    assert tried[0] == ("PLAIN", b"user", "päss#wörd".encode())


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
        outbox.deliver_due()
        assert waiting() == 0
    assert set(names) == {"shop.example.com"}


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
        outbox.deliver_due()
        assert waiting() == (0 if trusted else 1)
    assert len(inbox.letters) == (1 if trusted else 0)


def test_a_remote_server_without_tls_gets_no_email(app: Flask, monkeypatch):
    with app.app_context(), smtp_server(Inbox()) as port:
        monkeypatch.setattr("bulwark.mail.smtp.is_local", lambda _: False)
        with (
            pytest.raises(smtplib.SMTPNotSupportedError),
            smtp._connection(urls.mail_server(f"smtp://localhost:{port}")),
        ):
            pass


def test_the_password_of_the_mail_server_may_hold_any_character(
    app: Flask, mail_to, tmp_path: Path, monkeypatch
):
    seen = []

    def check(server, session, envelope, mechanism, data) -> AuthResult:
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
        outbox.deliver_due()
        assert waiting() == 0
    assert seen == [(b"zo@e", b"p:/?w")]


@pytest.mark.parametrize(("answer", "left"), [("451 later", 1), ("554 never", 0)])
def test_a_refusal_counts_only_when_it_is_final(
    app: Flask, mail_to, answer: str, left: int
):
    with app.app_context(), smtp_server(Inbox(answer)) as port:
        mail_to(f"smtp://localhost:{port}")
        send()
        outbox.deliver_due()
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
        outbox.deliver_due()
        assert waiting() == left
