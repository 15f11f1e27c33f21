"""Reauthentication: with all that a sign-in takes, and worth a new token."""

import re
import time

import pytest
from flask import Flask
from sqlalchemy import select

from bulwark.audit.events import SecurityEvent
from bulwark.database import db
from bulwark.identity.sessions import UserSession
from tests.conftest import GOOD_PASSWORD, Visitor, add_person, totp_code
from tests.passkey import SoftwarePasskey
from tests.support import register, use

WRONG = "not the password at all"
# What changes how somebody signs in, or ends where they are signed in.
SENSITIVE = (
    ("get", "/account/authenticator"),
    ("get", "/account/passkeys"),
    ("post", "/account/passkeys/remove"),
    ("get", "/account/recovery-codes"),
    ("get", "/change-email"),
    ("get", "/account/tokens"),
    ("post", "/account/sessions/1/end"),
    ("post", "/account/sessions/end-others"),
)


def cookie(visitor: Visitor) -> str:
    found = visitor.client.get_cookie("__Host-session")
    assert found
    return found.value


def sign_in_long_ago(visitor: Visitor, email: str) -> None:
    """Sign in, as if that had been an hour ago."""
    visitor.sign_in(email)
    let_an_hour_pass(visitor.app)


def let_an_hour_pass(app: Flask) -> None:
    """Let everybody have signed in an hour before."""
    with app.app_context():
        for row in db.session.scalars(select(UserSession)):
            row.data = {**row.data, "fs_paa": time.time() - 3600}
        db.session.commit()


def is_asked_again(visitor: Visitor) -> bool:
    answer = visitor.get("/account/authenticator")
    return answer.headers.get("Location", "").startswith("/verify")


def events(app: Flask) -> list[tuple[str, str]]:
    with app.app_context():
        found = db.session.scalars(select(SecurityEvent).order_by(SecurityEvent.id))
        return [(e.name, e.details.get("factor", "")) for e in found]


def page_text(visitor: Visitor, path: str = "/verify") -> str:
    main = visitor.get(path).text.partition("<main")[2].partition("</main>")[0]
    return re.sub(r"<[^>]+>", " ", main)


@pytest.mark.parametrize(("method", "path"), SENSITIVE)
def test_what_changes_the_way_in_asks_again(
    visitor: Visitor, person: str, method: str, path: str
):
    sign_in_long_ago(visitor, person)
    if method == "get":
        answer = visitor.get(path)
    else:
        answer = visitor.client.post(
            path,
            data={"csrf_token": visitor.csrf_token("/account/sessions")},
            headers={"Referer": "https://localhost/account/sessions"},
        )
    assert answer.headers["Location"].startswith("/verify?next=")


def test_after_that_ending_sessions_goes_on_at_its_page(
    visitor: Visitor, other_visitor: Visitor, person: str
):
    other_visitor.sign_in(person)
    sign_in_long_ago(visitor, person)
    page, path = "/account/sessions", "/account/sessions/end-others"
    token = visitor.csrf_token(page)
    sent = {
        "data": {"csrf_token": token},
        "headers": {"Referer": f"https://localhost{page}"},
    }
    asked = visitor.client.post(path, **sent).headers["Location"]
    assert other_visitor.is_signed_in()
    back = visitor.submit(asked, {"password": GOOD_PASSWORD, "next": page})
    assert back.headers["Location"] == page
    visitor.client.post(path, **sent)
    assert not other_visitor.is_signed_in()


def test_a_referer_from_elsewhere_leads_nowhere(visitor: Visitor, person: str):
    sign_in_long_ago(visitor, person)
    token = visitor.csrf_token("/account/sessions")
    for referer in ("https://localhost//evil.example/x", "https://localhost/x?y#z"):
        asked = visitor.client.post(
            "/account/sessions/end-others",
            data={"csrf_token": token},
            headers={"Referer": referer},
        ).headers["Location"]
        visitor.client.get(asked)
        back = visitor.submit(asked, {"password": WRONG})
        assert "evil.example" not in back.headers.get("Location", "")


def test_showing_it_again_renews_the_token_of_the_session(
    visitor: Visitor, other_visitor: Visitor, app: Flask, person: str
):
    sign_in_long_ago(visitor, person)
    with app.app_context():
        (before,) = db.session.execute(select(UserSession.id, UserSession.created_at))
    old = cookie(visitor)
    visitor.submit("/verify", {"password": GOOD_PASSWORD})
    assert cookie(visitor) != old
    assert not is_asked_again(visitor)
    other_visitor.client.set_cookie("__Host-session", old, secure=True)
    assert not other_visitor.is_signed_in()
    with app.app_context():
        (after,) = db.session.execute(select(UserSession.id, UserSession.created_at))
    assert after == before, "it is the same session, which ends when it would have"


def test_a_wrong_password_leaves_the_session_as_it_is(visitor: Visitor, person: str):
    sign_in_long_ago(visitor, person)
    old = cookie(visitor)
    visitor.submit("/verify", {"password": WRONG})
    assert cookie(visitor) == old
    assert is_asked_again(visitor)


# --- With a second factor -----


@pytest.fixture
def with_app(app: Flask) -> str:
    """The address of somebody with an authenticator app."""
    return add_person(app, "tom@example.org", totp=True)


def send(visitor: Visitor, way: str, data: dict[str, str]) -> None:
    if way == "json":
        visitor.send("/verify", data)
    else:
        visitor.submit("/verify", data)


@pytest.mark.parametrize("way", ["form", "json"])
def test_the_password_alone_is_not_enough_for_who_has_an_app(
    visitor: Visitor, app: Flask, with_app: str, way: str
):
    sign_in_long_ago(visitor, with_app)
    for data in ({}, {"code": ""}, {"code": "000000"}, {"code": "no code"}):
        send(visitor, way, {"password": GOOD_PASSWORD, **data})
        assert is_asked_again(visitor), data
    code = totp_code(app, with_app)
    send(visitor, way, {"password": WRONG, "code": code})
    assert is_asked_again(visitor)
    send(visitor, way, {"password": GOOD_PASSWORD, "code": code})
    assert not is_asked_again(visitor)


def test_a_code_is_good_once(visitor: Visitor, app: Flask, with_app: str):
    sign_in_long_ago(visitor, with_app)
    both = {"password": GOOD_PASSWORD, "code": totp_code(app, with_app)}
    visitor.submit("/verify", both)
    assert not is_asked_again(visitor)
    old = cookie(visitor)
    assert "This code is incorrect" in visitor.submit("/verify", both).text
    assert cookie(visitor) == old


def test_codes_can_t_be_guessed_there(visitor: Visitor, app: Flask, with_app: str):
    sign_in_long_ago(visitor, with_app)
    for _ in range(5):
        visitor.submit("/verify", {"password": GOOD_PASSWORD, "code": "000000"})
    right = {"password": GOOD_PASSWORD, "code": totp_code(app, with_app)}
    answer = visitor.submit("/verify", right)
    assert answer.status_code == 429
    assert int(answer.headers["Retry-After"]) > 0
    assert is_asked_again(visitor)
    assert events(app)[-2:] == [
        ("authn_reauth_fail", "totp"),
        ("authn_login_fail_max", "totp"),
    ]


def test_who_has_only_a_passkey_shows_it(visitor: Visitor, app: Flask, person: str):
    visitor.sign_in(person)
    key = add_passkey(visitor)
    let_an_hour_pass(app)
    assert is_asked_again(visitor)
    text = page_text(visitor)
    assert "Use a passkey" in text
    assert "Continue" not in text
    assert "recovery code" in text
    answer = visitor.send("/verify", {"password": GOOD_PASSWORD})
    assert "Use your passkey" in answer.text
    assert is_asked_again(visitor)
    old = cookie(visitor)
    assert use(visitor, key, "/verify/passkey").status_code == 200
    assert not is_asked_again(visitor)
    assert cookie(visitor) != old


def add_passkey(visitor: Visitor) -> SoftwarePasskey:
    key = SoftwarePasskey()
    register(visitor, key)
    return key


def by_email(app: Flask, email: str) -> None:
    """Let codes by email be somebody's second factor."""
    with app.app_context():
        user = app.extensions["security"].datastore.find_user(email=email)
        user.tf_primary_method = "email"
        db.session.commit()


def test_who_gets_codes_by_email_asks_for_one(
    visitor: Visitor, app: Flask, with_app: str
):
    sign_in_long_ago(visitor, with_app)
    by_email(app, with_app)
    assert "Send me a code" in page_text(visitor)
    sent = visitor.client.post(
        "/verify/code",
        data={"csrf_token": visitor.csrf_token("/verify"), "next": "/account"},
        headers={"Referer": "https://localhost/verify"},
    )
    assert sent.headers["Location"] == "/verify?next=/account"
    body = visitor.letters()[-1].get_body(("plain",))
    assert body
    found = re.search(r"\b(\d{6})\b", body.get_content())
    assert found
    with app.app_context():
        user = app.extensions["security"].datastore.find_user(email=with_app)
        user.totp_counter = None
        db.session.commit()
    visitor.submit("/verify", {"password": GOOD_PASSWORD, "code": found[1]})
    assert not is_asked_again(visitor)


def test_codes_are_emailed_five_times_an_hour_and_to_nobody_else(
    visitor: Visitor, other_visitor: Visitor, app: Flask, with_app: str, person: str
):
    visitor.sign_in(with_app)
    by_email(app, with_app)
    for _ in range(7):
        visitor.send("/verify/code", {})
    assert len(visitor.letters()) == 5
    other_visitor.sign_in(person)
    other_visitor.send("/verify/code", {})
    assert len(visitor.letters()) == 5


# --- Signing out -----


def test_each_page_of_somebody_signed_in_has_a_way_out(
    ada: Visitor, visitor: Visitor, app: Flask
):
    pages = 0
    for rule in app.url_map.iter_rules():
        if rule.arguments or "GET" not in (rule.methods or ()):
            continue
        answer = ada.get(rule.rule)
        if answer.status_code == 200 and "<header>" in answer.text:
            header = answer.text.partition("<header>")[2].partition("</header>")[0]
            assert 'action="/logout"' in header, rule.rule
            pages += 1
    assert pages > 10
    assert 'action="/logout"' in ada.get("/nowhere").text
    ada.client.post(
        "/logout",
        data={"csrf_token": ada.csrf_token("/")},
        headers={"Referer": "https://localhost/"},
    )
    assert not ada.is_signed_in()
    assert "/logout" not in visitor.get("/login").text


def test_who_must_set_up_a_factor_first_has_a_way_out(visitor: Visitor, app: Flask):
    email = add_person(app, "new@example.org")
    with app.app_context():
        find = app.extensions["security"].datastore.find_user
        find(email=email).second_factor_required = True
        db.session.commit()
    visitor.sign_in(email)
    assert 'action="/logout"' in visitor.get("/account/second-factor").text
