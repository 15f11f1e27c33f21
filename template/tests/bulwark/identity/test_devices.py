"""Devices: what a browser is called, and which ones somebody signed in with before."""

from datetime import timedelta

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select, update

from bulwark.database import db, utcnow
from bulwark.identity import devices
from bulwark.identity.devices import KnownDevice
from tests.conftest import GOOD_PASSWORD, Visitor, add_person
from tests.support import find_user

COOKIE = "__Host-device"
NEW_PASSWORD = "seven brass kettles whistle"
APPLE = "AppleWebKit/605.1.15 (KHTML, like Gecko)"
GOOGLE = "AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0"


def cookie(client: FlaskClient):
    return client.get_cookie(COOKIE)


def known(app: Flask) -> list[KnownDevice]:
    with app.app_context():
        return list(db.session.scalars(select(KnownDevice)))


@pytest.mark.parametrize(
    ("user_agent", "name"),
    [
        (
            "Mozilla/5.0 (X11; Linux x86_64; rv:144.0) Gecko/20100101 Firefox/144.0",
            "Firefox on Linux",
        ),
        (
            "Mozilla/5.0 (Android 15; Mobile; rv:144.0) Gecko/144.0 Firefox/144.0",
            "Firefox on Android",
        ),
        (
            f"Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) {APPLE}"
            " Version/18.6 Mobile/15E148 Safari/604.1",
            "Safari on iPhone",
        ),
        (
            f"Mozilla/5.0 (iPad; CPU OS 18_6 like Mac OS X) {APPLE} CriOS/141.0.7390.41"
            " Mobile/15E148 Safari/604.1",
            "Chrome on iPad",
        ),
        (
            f"Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) {APPLE}"
            " FxiOS/144.0 Mobile/15E148 Safari/605.1.15",
            "Firefox on iPhone",
        ),
        (
            f"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) {APPLE} Version/18.6"
            " Safari/605.1.15",
            "Safari on Mac",
        ),
        (
            f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {GOOGLE} Safari/537.36",
            "Chrome on Windows",
        ),
        (
            f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {GOOGLE} Safari/537.36"
            " Edg/141.0.0.0",
            "Edge on Windows",
        ),
        (
            f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {GOOGLE} Safari/537.36"
            " OPR/122.0.0.0",
            "Opera on Windows",
        ),
        (
            f"Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) {GOOGLE} Safari/537.36",
            "Chrome on ChromeOS",
        ),
        (
            "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko)"
            " SamsungBrowser/28.0 Chrome/130.0.0.0 Mobile Safari/537.36",
            "Samsung Internet on Android",
        ),
        ("curl/8.14.1", "curl"),
        ("python-requests/2.32.5", "a Python script"),
        ("Mozilla/5.0 (Linux; U; en-us)", "Unknown browser on Linux"),
        ("", "Unknown browser"),
        (None, "Unknown browser"),
    ],
)
def test_a_browser_is_called_what_people_call_it(user_agent: str | None, name: str):
    assert devices.name_of(user_agent) == name


@pytest.mark.parametrize(
    "hostile",
    [
        "<script>alert(1)</script>",
        "Firefox/1\r\nBcc: all@example.org",
        "\x00\x1b[31m\u202egnp.exe",
        "x" * 10_000 + "Firefox/1",
        "https://evil.example/Firefox/ on iPhone",
    ],
    ids=["html", "header", "controls", "long", "link"],
)
def test_a_name_repeats_nothing_of_the_user_agent(hostile: str):
    known_words = {*devices.BROWSERS.values(), *devices.SYSTEMS.values()}
    browser, _, system = devices.name_of(hostile).partition(" on ")
    assert browser in known_words | {"Unknown browser"}
    assert system in known_words | {""}


def test_a_completed_sign_in_makes_a_browser_known(
    visitor: Visitor, app: Flask, person: str
):
    visitor.sign_in(person)
    token = cookie(visitor.client)
    assert token
    with app.test_request_context(headers={"Cookie": f"{token.key}={token.value}"}):
        assert devices.known_to(find_user(app, person)) == known(app)[0].token_hash
        assert devices.known_to(None) == ""


def test_the_cookie_stays_long_and_no_script_reads_it(visitor: Visitor, person: str):
    answer = visitor.sign_in(person)
    (line,) = [
        c for c in answer.headers.getlist("Set-Cookie") if c.startswith(f"{COOKIE}=")
    ]
    for part in (
        "Secure",
        "HttpOnly",
        "Path=/",
        "SameSite=Lax",
        f"Max-Age={400 * 86400}",
    ):
        assert part in line
    assert "Domain" not in line


def test_half_a_sign_in_makes_no_browser_known(visitor: Visitor, app: Flask):
    add_person(app, "zoe@example.org", totp=True)
    visitor.submit("/login", {"email": "zoe@example.org", "password": GOOD_PASSWORD})
    assert cookie(visitor.client) is None
    assert known(app) == []
    visitor.sign_in("zoe@example.org")
    assert len(known(app)) == 1


def test_a_wrong_password_makes_no_browser_known(
    visitor: Visitor, app: Flask, person: str
):
    visitor.sign_in(person, "a wrong one")
    assert known(app) == []


def test_a_browser_keeps_its_cookie_and_is_known_once(
    visitor: Visitor, app: Flask, person: str
):
    visitor.sign_in(person)
    first = cookie(visitor.client)
    visitor.client.delete_cookie("__Host-session")
    visitor.sign_in(person)
    assert cookie(visitor.client).value == first.value
    assert len(known(app)) == 1


def test_the_table_shows_neither_the_cookie_nor_who_shares_a_browser(
    visitor: Visitor, app: Flask, person: str
):
    visitor.sign_in(person)
    visitor.client.delete_cookie("__Host-session")
    visitor.sign_in(add_person(app, "ada@example.org"))
    first, second = known(app)
    assert first.token_hash != second.token_hash
    assert cookie(visitor.client).value not in (first.token_hash, second.token_hash)


def test_a_browser_of_somebody_else_is_not_known(
    visitor: Visitor, app: Flask, person: str
):
    visitor.sign_in(person)
    token = cookie(visitor.client)
    stranger = add_person(app, "ada@example.org")
    with app.test_request_context(headers={"Cookie": f"{token.key}={token.value}"}):
        assert devices.known_to(find_user(app, stranger)) == ""


@pytest.mark.parametrize("planted", ["", "short", "x" * 44, "é" * 43, "a b" * 15])
def test_a_cookie_that_was_not_made_here_is_replaced(
    visitor: Visitor, app: Flask, person: str, planted: str
):
    visitor.client.set_cookie(COOKIE, planted, domain="localhost", secure=True)
    visitor.sign_in(person)
    assert cookie(visitor.client).value != planted


def test_a_password_reset_makes_other_browsers_unknown(
    visitor: Visitor, other_visitor: Visitor, app: Flask, person: str
):
    visitor.sign_in(person)
    other_visitor.sign_in(person)
    visitor.client.delete_cookie("__Host-session")
    visitor.submit("/reset", {"email": person})
    visitor.submit(visitor.link_in_last_letter(), {"password": NEW_PASSWORD})
    (left,) = known(app)
    token = cookie(visitor.client)
    with app.test_request_context(headers={"Cookie": f"{token.key}={token.value}"}):
        assert devices.known_to(find_user(app, person)) == left.token_hash


def test_a_browser_is_forgotten_after_400_days(
    visitor: Visitor, app: Flask, person: str
):
    visitor.sign_in(person)
    token = cookie(visitor.client)
    with app.app_context():
        devices.forget_old.call_local()
        assert len(known(app)) == 1
        ago = utcnow() - timedelta(days=400, minutes=1)
        db.session.execute(update(KnownDevice).values(last_seen_at=ago))
        db.session.commit()
    with app.test_request_context(headers={"Cookie": f"{token.key}={token.value}"}):
        assert devices.known_to(find_user(app, person)) == ""
        devices.forget_old.call_local()
    assert known(app) == []
