"""The breach service: what it gets, what it answers, and what its absence changes."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from bulwark.identity.security import breached_passwords
from tests.conftest import GOOD_PASSWORD, Visitor

DIGEST = hashlib.sha1(GOOD_PASSWORD.encode()).hexdigest().upper()
PREFIX, SUFFIX = DIGEST[:5], DIGEST[5:]

pytestmark = pytest.mark.usefixtures("public_sign_up")


class Service(ThreadingHTTPServer):
    """Answers each request alike, and keeps the paths it was asked for."""

    answer: bytes = b""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str] = []
        self.may_answer = Event()
        self.may_answer.set()


class Handler(BaseHTTPRequestHandler):
    """Answers as the service does: the rest of a hash and a count, a line each."""

    server: Service

    def do_GET(self) -> None:
        """Answer one request."""
        self.server.asked.append(self.path)
        self.server.may_answer.wait()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.server.answer)

    def log_message(self, *_: object) -> None:
        """Keep the output of the tests clean."""


@pytest.fixture
def service(app: Flask, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """A breach service that the app asks."""
    with _running() as server:
        url = f"http://127.0.0.1:{server.server_port}/range"
        settings = replace(app.extensions["bulwark"], breach_service=url)
        monkeypatch.setitem(app.extensions, "bulwark", settings)
        yield server


@contextmanager
def _running() -> Iterator[Service]:
    with Service() as server:
        Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server
        server.may_answer.set()
        server.shutdown()


def register(visitor: Visitor) -> TestResponse:
    """Choose the good password for a new account; a redirect means that it is made."""
    visitor.submit("/register", {"email": "zoe@example.org"})
    return visitor.create_account(visitor.link_in_last_letter())


def test_a_leaked_password_is_refused(service: Service, visitor: Visitor):
    service.answer = f"{'0' * 35}:3\r\n{SUFFIX}:2\r\n".encode()
    assert "This password appeared in a data breach" in register(visitor).text


def test_the_service_gets_five_digits_of_the_hash_and_no_more(
    service: Service, visitor: Visitor
):
    register(visitor)
    assert service.asked == [f"/range/{PREFIX}"]


@pytest.mark.parametrize(
    "answer", [b"", b"\xff", b"<h1>Blocked by our proxy</h1>", f"{SUFFIX}:0".encode()]
)
def test_an_answer_without_the_password_refuses_nothing(
    service: Service, visitor: Visitor, answer: bytes
):
    """Padding has a count of 0."""
    service.answer = answer
    assert register(visitor).status_code == 302


def test_a_silent_service_refuses_nothing(
    service: Service, visitor: Visitor, monkeypatch: pytest.MonkeyPatch
):
    service.answer = f"{SUFFIX}:2".encode()
    service.may_answer.clear()
    monkeypatch.setattr(breached_passwords, "DEADLINE", 0.1)
    assert register(visitor).status_code == 302


def test_a_service_that_is_away_refuses_nothing(service: Service, visitor: Visitor):
    service.shutdown()
    service.server_close()
    assert register(visitor).status_code == 302


def test_without_the_setting_no_service_is_asked(
    app: Flask, service: Service, visitor: Visitor
):
    app.extensions["bulwark"] = replace(app.extensions["bulwark"], breach_service="")
    assert register(visitor).status_code == 302
    assert service.asked == []
