"""Accounts: sign-up, sign-in, passwords, addresses, and what a stranger can learn."""

import hashlib
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from urllib.parse import urljoin, urlsplit

import bcrypt
import pytest
from flask import Flask
from flask_security import hash_password, verify_password
from flask_security.utils import hash_data
from werkzeug.test import TestResponse

from bulwark.database import db
from tests.conftest import GOOD_PASSWORD, Visitor, add_person
from tests.support import find_user

NEW_PASSWORD = "seven brass kettles whistle"


def test_signing_out_needs_a_post(visitor: Visitor, person: str):
    visitor.sign_in(person)
    assert visitor.get("/logout").status_code == 405
    assert visitor.is_signed_in()
    token = visitor.csrf_token("/change")
    visitor.client.post(
        "/logout",
        data={"csrf_token": token},
        headers={"Referer": "https://localhost/account"},
    )
    assert not visitor.is_signed_in()


def test_a_wrong_password_is_refused(visitor: Visitor, person: str):
    visitor.sign_in(person, "purple otter juggles lamp")
    assert not visitor.is_signed_in()


def test_two_long_passwords_that_differ_at_the_end_are_distinguished(
    visitor: Visitor, app: Flask, person: str
):
    long = GOOD_PASSWORD * 20
    visitor.sign_in(person)
    visitor.submit(
        "/change",
        {"password": GOOD_PASSWORD, "new_password": long, "new_password_confirm": long},
    )
    with app.test_request_context():
        stored = find_user(app, person).password
        assert verify_password(long, stored)
        assert not verify_password(long[:-1] + "x", stored)


def test_an_address_is_one_account_in_every_spelling(visitor: Visitor, person: str):
    visitor.sign_in(person.upper())
    assert visitor.is_signed_in()


def test_a_forgotten_password_is_reset_by_email(visitor: Visitor, person: str):
    visitor.submit("/reset", {"email": person})
    link = visitor.link_in_last_letter()
    visitor.submit(link, {"password": NEW_PASSWORD, "password_confirm": NEW_PASSWORD})
    visitor.sign_in(person, NEW_PASSWORD)
    assert visitor.is_signed_in()


def test_a_reset_link_works_once(visitor: Visitor, other_visitor: Visitor, person: str):
    visitor.submit("/reset", {"email": person})
    link = visitor.link_in_last_letter()
    visitor.submit(link, {"password": NEW_PASSWORD, "password_confirm": NEW_PASSWORD})
    assert other_visitor.get(link).headers["Location"] == "/reset"


def test_a_reset_link_dies_after_an_hour(
    visitor: Visitor, person: str, monkeypatch: pytest.MonkeyPatch
):
    visitor.submit("/reset", {"email": person})
    link = visitor.link_in_last_letter()
    assert visitor.get(link).status_code == 200
    now = datetime.now(UTC)
    later = (now + timedelta(minutes=61)).timestamp()
    monkeypatch.setattr("itsdangerous.timed.time.time", lambda: later)
    assert visitor.get(link).headers["Location"] == "/reset"


def test_a_changed_password_ends_other_sessions(
    visitor: Visitor, other_visitor: Visitor, person: str
):
    visitor.sign_in(person)
    other_visitor.sign_in(person)
    visitor.submit(
        "/change",
        {
            "password": GOOD_PASSWORD,
            "new_password": NEW_PASSWORD,
            "new_password_confirm": NEW_PASSWORD,
        },
    )
    assert visitor.is_signed_in()
    assert not other_visitor.is_signed_in()


def test_a_changed_password_is_reported_by_email(visitor: Visitor, person: str):
    visitor.sign_in(person)
    visitor.submit(
        "/change",
        {
            "password": GOOD_PASSWORD,
            "new_password": NEW_PASSWORD,
            "new_password_confirm": NEW_PASSWORD,
        },
    )
    assert visitor.letters()[-1]["To"] == person


def test_a_new_address_counts_once_it_is_confirmed(visitor: Visitor, person: str):
    visitor.sign_in(person)
    visitor.submit("/change-email", {"email": "zoe@example.net"})
    assert person in visitor.get("/account").get_data(as_text=True)
    visitor.submit(visitor.link_in_last_letter(), {})
    assert "zoe@example.net" in visitor.get("/account").get_data(as_text=True)


def test_ones_own_address_is_not_a_new_one(visitor: Visitor, person: str):
    visitor.sign_in(person)
    answer = visitor.submit("/change-email", {"email": person})
    assert "This is already your email address." in answer.text
    assert visitor.letters() == []


def test_sensitive_pages_ask_again_after_a_quarter_of_an_hour(
    visitor: Visitor, person: str, monkeypatch: pytest.MonkeyPatch
):
    visitor.sign_in(person)
    assert visitor.get("/change-email").status_code == 200
    later = datetime.now(UTC).replace(tzinfo=None) + timedelta(minutes=15, seconds=1)
    monkeypatch.setattr("flask_security.utils.naive_utcnow", lambda: later)
    assert "/verify" in visitor.get("/change-email").headers["Location"]


def test_a_disabled_account_is_out_at_the_next_request(
    visitor: Visitor, app: Flask, person: str
):
    visitor.sign_in(person)
    with app.app_context():
        find_user(app, person).active = False
        db.session.commit()
    assert not visitor.is_signed_in()


def test_an_old_hash_is_replaced_at_sign_in(visitor: Visitor, app: Flask, person: str):
    context = app.extensions["security"].pwd_context
    old = context.using(bcrypt__rounds=5)
    with app.test_request_context():
        someone = find_user(app, person)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(app.extensions["security"], "pwd_context", old)
            someone.password = hash_password(GOOD_PASSWORD)
        assert someone.password.startswith("$2b$05$")
        db.session.commit()
    visitor.sign_in(person)
    assert visitor.is_signed_in()
    with app.app_context():
        assert find_user(app, person).password.startswith("$2b$04$")


@pytest.mark.usefixtures("public_sign_up")
@pytest.mark.parametrize("form", ["/login", "/register", "/reset"])
def test_known_and_unknown_addresses_get_the_same_page(
    form: str, app: Flask, visitor: Visitor, other_visitor: Visitor
):
    known, unknown = add_person(app, "known@example.org"), "alien@example.org"
    password = {"password": "seven brass kettles hum"} if form == "/login" else {}
    pages = []
    for someone, email in ((visitor, known), (other_visitor, unknown)):
        answer = someone.submit(form, {"email": email, **password})
        page = someone.get("/login") if answer.status_code == 302 else answer
        text = page.get_data(as_text=True).replace(email, "EMAIL")
        pages.append((answer.status_code, _without_tokens(text)))
    assert pages[0] == pages[1]


@pytest.mark.usefixtures("public_sign_up")
@pytest.mark.parametrize("form", ["/login", "/register", "/reset"])
def test_known_and_unknown_addresses_get_the_same_json(
    form: str, app: Flask, visitor: Visitor
):
    known = add_person(app, "known@example.org")
    token = visitor.csrf_token()
    answers = []
    for email in (known, "alien@example.org"):
        data = {"email": email, "password": "seven brass kettles hum"}
        if form != "/login":
            del data["password"]
        answer = visitor.client.post(
            form,
            json=data,
            headers={"X-CSRFToken": token, "Referer": "https://localhost/login"},
        )
        body = answer.get_json()
        body["response"].pop("csrf_token", None)
        answers.append((answer.status_code, body))
    assert answers[0] == answers[1]


@pytest.mark.usefixtures("public_sign_up")
@pytest.mark.parametrize("form", ["/login", "/register", "/reset"])
def test_known_and_unknown_addresses_cost_the_same_hashing(
    form: str, app: Flask, visitor: Visitor, monkeypatch: pytest.MonkeyPatch
):
    """Hashing takes 99% of the time of these requests, so its count is the time."""
    calls: list[int] = []
    original = bcrypt.hashpw

    def counted(*arguments: bytes) -> bytes:
        calls.append(1)
        return original(*arguments)

    monkeypatch.setattr(bcrypt, "hashpw", counted)
    known = add_person(app, "known@example.org")
    counts = []
    for email in (known, "alien@example.org"):
        calls.clear()
        data = {"email": email, "password": "seven brass kettles hum"}
        visitor.submit(form, data)
        counts.append(len(calls))
    assert counts[0] == counts[1]


def test_the_hash_in_a_reset_link_costs_nothing(app: Flask):
    """The default hash is slow: its time would reveal a known address."""
    with app.test_request_context():
        assert hash_data("stored") == hashlib.sha256(b"stored").hexdigest()


def _without_tokens(page: str) -> str:
    page = re.sub(r'value="[\w.-]{40,}"', "", page)
    page = re.sub(r'nonce="[^"]+"', "", page)
    return re.sub(r"\b[0-9a-f]{32}\b", "", page)


@pytest.mark.parametrize("where", ["query", "header", "body"])
def test_a_token_signs_nobody_in(where: str, visitor: Visitor, app: Flask, person: str):
    with app.test_request_context():
        token = find_user(app, person).get_auth_token()
    answer = {
        "query": lambda: visitor.get(f"/account?auth_token={token}"),
        "header": lambda: visitor.get(
            "/account", headers={"Authentication-Token": token}
        ),
        "body": lambda: visitor.get("/account", json={"auth_token": token}),
    }[where]()
    assert answer.status_code in (302, 401)


def test_nobody_is_remembered_after_the_browser_closes(visitor: Visitor, person: str):
    answer = visitor.client.post(
        "/login",
        json={"email": person, "password": GOOD_PASSWORD, "remember": True},
        headers={
            "X-CSRFToken": visitor.csrf_token(),
            "Referer": "https://localhost/login",
        },
    )
    assert visitor.is_signed_in()
    kept = [
        cookie.partition("=")[0]
        for cookie in answer.headers.getlist("Set-Cookie")
        if "Expires" in cookie or "Max-Age" in cookie
    ]
    assert kept == ["__Host-device"]
    visitor.client.delete_cookie("__Host-session")
    assert not visitor.is_signed_in()


def test_signing_in_never_returns_a_token(visitor: Visitor, person: str):
    token = visitor.csrf_token()
    answer = visitor.client.post(
        "/login?include_auth_token",
        json={"email": person, "password": GOOD_PASSWORD},
        headers={"X-CSRFToken": token, "Referer": "https://localhost/login"},
    )
    assert answer.status_code == 200
    assert "authentication_token" not in answer.get_data(as_text=True)


@pytest.mark.parametrize(
    "target",
    [
        "https://evil.example/",
        "//evil.example",
        "///evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "https:evil.example",
        "javascript:alert(1)",
        "/\t/evil.example",
        "http://localhost@evil.example",
        "%2F%2Fevil.example",
    ],
)
def test_signing_in_leads_nowhere_else(visitor: Visitor, person: str, target: str):
    token = visitor.csrf_token()
    answer = visitor.client.post(
        "/login",
        query_string={"next": target},
        data={"csrf_token": token, "email": person, "password": GOOD_PASSWORD},
        headers={"Referer": "https://localhost/login"},
    )
    # A browser drops tabs and reads a backslash as a slash.
    location = answer.headers.get("Location", "/").replace("\t", "").replace("\\", "/")
    assert urlsplit(urljoin("https://localhost/login", location)).netloc == "localhost"


def test_signing_in_leads_back_to_where_one_wanted_to_go(visitor: Visitor, person: str):
    asked = visitor.get("/change-email").headers["Location"]
    assert asked == "/login?next=/change-email"
    token = visitor.csrf_token(asked)
    answer = visitor.client.post(
        asked,
        data={"csrf_token": token, "email": person, "password": GOOD_PASSWORD},
        headers={"Referer": "https://localhost/login"},
    )
    assert answer.headers["Location"] == "/change-email"


@pytest.mark.parametrize("form", ["/login", "/register", "/reset"])
def test_no_form_works_without_its_csrf_token(form: str, visitor: Visitor):
    visitor.get(form)
    data = {"email": "a@example.org", "password": GOOD_PASSWORD}
    assert visitor.client.post(form, data=data).status_code == 400
    assert visitor.client.post(form, json=data).status_code == 400


def test_a_password_manager_sees_whose_password_is_reset(visitor: Visitor, person: str):
    """Else it keeps a second entry without a name: petities/petitions.eu#272."""
    visitor.submit("/reset", {"email": person})
    link = visitor.link_in_last_letter()
    page = visitor.get(link).text
    (owner,) = re.findall(r"<input[^>]*autocomplete=\"username\"[^>]*>", page)
    assert f'value="{person}"' in owner
    assert "hidden" in owner


OURS, THEIRS = "https://localhost", "https://attacker.example"


def send_with(visitor: Visitor, headers: dict[str, str]) -> TestResponse:
    """Send a form with no other header of its origin than these."""
    data = {"csrf_token": visitor.csrf_token("/reset"), "email": "zoe@example.org"}
    return visitor.client.post("/reset", data=data, headers=headers)


@pytest.mark.parametrize(
    "headers",
    [
        {"Referer": f"{OURS}/reset"},
        {"Origin": OURS},
        {"Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "same-origin", "Origin": "null"},
        {"Sec-Fetch-Site": "none", "Origin": OURS},
    ],
    ids=str,
)
def test_one_header_that_names_this_service_is_enough(
    visitor: Visitor, headers: dict[str, str]
):
    answer = send_with(visitor, headers)
    assert answer.status_code == 200


def test_a_proxy_may_leave_out_the_port_that_visitors_use(
    visitor: Visitor, monkeypatch: pytest.MonkeyPatch
):
    """nginx's $host has none; APP_BASE_URL has it. bytedance/deer-flow#2791."""
    settings = visitor.client.application.extensions
    with_port = replace(settings["bulwark"], base_url=f"{OURS}:8443")
    monkeypatch.setitem(settings, "bulwark", with_port)
    headers = {"Sec-Fetch-Site": "same-origin", "Origin": f"{OURS}:8443"}
    assert send_with(visitor, headers).status_code == 200
    assert send_with(visitor, {"Origin": f"{OURS}:444"}).status_code == 400
    elsewhere = replace(with_port, base_url="https://www.localhost:8443")
    monkeypatch.setitem(settings, "bulwark", elsewhere)
    foreign = {"Origin": "https://www.localhost:8443"}
    assert send_with(visitor, foreign).status_code == 400


@pytest.mark.parametrize(
    "headers",
    [
        {"Referer": f"{THEIRS}/"},
        {"Referer": f"{OURS}.attacker.example/"},
        {"Referer": f"{OURS}:444/"},
        {"Referer": "http://localhost/"},
        {"Origin": THEIRS},
        {"Origin": THEIRS, "Referer": f"{OURS}/reset"},
        {"Origin": "http://localhost"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Origin": OURS},
        {"Sec-Fetch-Site": "same-origin", "Referer": THEIRS},
    ],
    ids=str,
)
def test_a_form_of_another_site_is_refused_and_called_that(
    visitor: Visitor, headers: dict[str, str]
):
    answer = send_with(visitor, headers)
    assert answer.status_code == 400
    assert "This form came from another site" in answer.text
    assert "removed the referrer" not in answer.text


@pytest.mark.parametrize(
    "headers", [{}, {"Origin": "null"}, {"Sec-Fetch-Site": "none"}], ids=str
)
def test_a_form_of_nobody_knows_where_is_refused_with_advice(
    visitor: Visitor, headers: dict[str, str]
):
    answer = send_with(visitor, headers)
    assert answer.status_code == 400
    assert "an extension or a proxy removed the referrer" in answer.text
