"""Enumeration: neither a response nor its time reveals who has an account.

The template's `tests/benchmarks/enumeration.py` measures time; here, what takes time
is counted.
"""

import re
from collections.abc import Callable
from typing import Any

import bcrypt
import pytest
from flask import Flask
from sqlalchemy import select
from werkzeug.test import TestResponse

from bulwark.database import db
from bulwark.mail.outbox import OutgoingMail
from tests.conftest import GOOD_PASSWORD, Visitor, add_person

UNKNOWN = "alien@example.org"
KINDS = ("known", "locked", "without password", "unknown")
FORMS = ("/login", "/register", "/reset")

pytestmark = pytest.mark.usefixtures("public_sign_up")


@pytest.fixture
def addresses(app: Flask) -> dict[str, str]:
    """An address of each kind."""
    found = {kind: f"{kind.replace(' ', '-')}@example.org" for kind in KINDS[:3]}
    for email in found.values():
        add_person(app, email)
    with app.app_context():
        find = app.extensions["security"].datastore.find_user
        find(email=found["locked"]).active = False
        find(email=found["without password"]).password = None
        db.session.commit()
    return found | {"unknown": UNKNOWN}


def fill(path: str, email: str, password: str) -> dict[str, str]:
    """Return what a visitor sends."""
    return {"email": email} | ({"password": password} if path == "/login" else {})


def plain(answer: Any, email: str) -> tuple[int, list[tuple[str, str]], str]:
    """Return a response, without what differs between any two."""
    text = answer.get_data(as_text=True).replace(email, "EMAIL")
    text = re.sub(r'value="[\w.-]{40,}"|"csrf_token":"[^"]+"', "", text)
    text = re.sub(r'nonce="[^"]+"|\b[0-9a-f]{32}\b', "", text)
    headers = [
        (name, "seconds" if name == "Retry-After" else value)
        for name, value in answer.headers
        if name
        not in (
            "Content-Length",
            "Content-Security-Policy",
            "Set-Cookie",
            "X-Request-ID",
        )
    ]
    return answer.status_code, headers, text


@pytest.mark.parametrize("send", [Visitor.submit, Visitor.send], ids=["form", "JSON"])
@pytest.mark.parametrize("tries", [1, 11], ids=["once", "too often"])
@pytest.mark.parametrize("path", FORMS)
def test_the_response_is_the_same_for_every_kind_of_account(
    path: str,
    tries: int,
    send: Callable[..., TestResponse],
    app: Flask,
    addresses: dict[str, str],
    visitor: Visitor,
):
    responses = {}
    for kind, email in addresses.items():
        fresh = Visitor(app, visitor.mailbox)
        for number in range(tries):
            fresh.client.environ_base["REMOTE_ADDR"] = f"192.0.2.{number}"
            response = send(fresh, path, fill(path, email, "seven brass kettles hum"))
        responses[kind] = plain(response, email)
    for kind in KINDS:
        assert responses[kind] == responses["unknown"], kind


def test_the_right_password_of_a_locked_account_is_answered_as_a_wrong_one(
    addresses: dict[str, str], visitor: Visitor, other_visitor: Visitor
):
    email = addresses["locked"]
    right = visitor.submit("/login", {"email": email, "password": GOOD_PASSWORD})
    wrong = other_visitor.submit("/login", {"email": email, "password": "something"})
    assert plain(right, email) == plain(wrong, email)


@pytest.mark.parametrize("path", FORMS)
def test_every_kind_of_account_costs_the_same_hashing(
    path: str,
    addresses: dict[str, str],
    visitor: Visitor,
    monkeypatch: pytest.MonkeyPatch,
):
    """Hashing takes 99% of the time of these requests, so its count is the time."""
    calls: list[str] = []
    original = bcrypt.hashpw

    def counted(secret: bytes, salt: bytes) -> bytes:
        calls.append(salt.decode()[:7])
        return original(secret, salt)

    monkeypatch.setattr(bcrypt, "hashpw", counted)
    costs = {}
    for kind, email in addresses.items():
        calls.clear()
        visitor.submit(path, fill(path, email, "seven brass kettles hum"))
        costs[kind] = list(calls)
    for kind in KINDS:
        assert costs[kind] == costs["unknown"], kind
    assert len(costs["unknown"]) == (path == "/login")


@pytest.mark.parametrize("path", FORMS)
def test_every_kind_of_account_costs_the_same_queries(
    path: str, addresses: dict[str, str], visitor: Visitor, statements: list[str]
):
    """Each is about a tenth of what a request without hashing takes."""
    costs = {}
    for kind, email in addresses.items():
        token = visitor.csrf_token(path)
        statements.clear()
        visitor.client.post(
            path,
            data={"csrf_token": token, **fill(path, email, "seven brass kettles hum")},
            headers={"Referer": f"https://localhost{path}"},
        )
        costs[kind] = list(statements)
    for kind in KINDS:
        assert costs[kind] == costs["unknown"], kind


@pytest.mark.parametrize("path", ["/register", "/reset"])
def test_every_address_is_sent_one_email(
    path: str, app: Flask, addresses: dict[str, str], visitor: Visitor
):
    """So nothing is left out for an unknown one that takes time for a known one."""
    for number, email in enumerate(addresses.values(), start=1):
        visitor.submit(path, {"email": email})
        with app.app_context():
            waiting = db.session.scalars(select(OutgoingMail.id)).all()
        assert len(waiting) == number, email


@pytest.mark.parametrize("kind", ["locked", "unknown"])
def test_a_reset_for_an_unknown_address_sends_an_email_that_explains_it(
    kind: str, addresses: dict[str, str], visitor: Visitor
):
    visitor.submit("/reset", {"email": addresses[kind]})
    (letter,) = visitor.letters()
    assert letter["To"] == addresses[kind]
    body = letter.get_body(("plain",))
    assert body
    text = body.get_content()
    assert "has no account here, or the account is locked" in text
    assert "/reset/" not in text
