"""The account page, and the pages of each step of signing in and out."""

import inspect
import json
import re

import pytest
from flask import Flask

from bulwark.database import db
from bulwark.identity.models import RecoveryCode
from tests.conftest import GOOD_PASSWORD, Visitor, add_person, totp_code
from tests.support import (
    JSON,
    find_user,
    give_passkey,
    routes_of_users,
    text_of,
)

HOSTILE = "'+alert`1`+'@example.com"


def give_codes(app: Flask, email: str, count: int) -> None:
    with app.app_context():
        user_id = find_user(app, email).id
        db.session.add_all(
            RecoveryCode(user_id=user_id, code_hash=str(number))
            for number in range(count)
        )
        db.session.commit()


# --- The security page ----------------------------------------------------------------


def test_one_page_shows_all_that_protects_an_account(
    visitor: Visitor, app: Flask, person: str
):
    visitor.sign_in(person)
    bare = text_of(visitor, "/account")
    assert "Only your password protects this account" in bare
    assert "message warning" in visitor.get("/account").text
    give_passkey(app, person)
    give_codes(app, person, 7)
    page = text_of(visitor, "/account")
    for fact in (person, "Blue key", "never used", "7 left", "on this device only"):
        assert fact in page
    assert "You signed in" in page
    assert "Only your password protects" not in page
    links = visitor.get("/account").text
    for path in ("passkeys", "authenticator", "sessions", "tokens", "activity"):
        assert f'href="/account/{path}"' in links


def test_a_script_reads_the_same_from_the_page(
    visitor: Visitor, app: Flask, person: str
):
    visitor.sign_in(person)
    give_passkey(app, person)
    give_codes(app, person, 7)
    answer = visitor.get("/account", headers=JSON).get_json()
    assert answer["email"] == person
    assert answer["passkeys"][0]["name"] == "Blue key"
    assert answer["recovery_codes_left"] == 7
    assert answer["authenticator_app"] is False
    assert answer["sessions"] == 1
    assert answer["activity"][0]["name"] == "authn_login_success"


@pytest.mark.parametrize(
    ("left", "warning"),
    [(0, "You have no recovery codes"), (1, "You have 1 recovery code left"), (4, "")],
)
def test_few_recovery_codes_are_a_warning(
    visitor: Visitor, app: Flask, person: str, left: int, warning: str
):
    visitor.sign_in(person)
    give_passkey(app, person)
    give_codes(app, person, left)
    page = text_of(visitor, "/account")
    assert warning in page
    assert ("message warning" in visitor.get("/account").text) is bool(warning)


# --- Signing out ----------------------------------------------------------------------


def is_of_the_base(app: Flask, endpoint: str) -> bool:
    view = inspect.unwrap(app.view_functions[endpoint])
    return bool(view.__module__.startswith("bulwark."))


def test_each_page_of_the_base_offers_to_sign_out(visitor: Visitor, app: Flask):
    """OWASP ASVS 5.0, 7.4.4."""
    visitor.sign_in(add_person(app, "ada@example.org", "administrator"))
    base = app.url_map.bind("")
    own = {
        path
        for method, path in routes_of_users(app)
        if method == "GET" and is_of_the_base(app, base.match(path)[0])
    }
    shown = 0
    for path in sorted(own):
        # Buffered: the export is a stream, which holds its context until it is read.
        page = visitor.get(path, headers={"Accept": "text/html"}, buffered=True)
        if page.status_code == 200 and page.mimetype == "text/html":
            assert 'action="/logout"' in page.text, path
            shown += 1
    assert shown > 10


# --- Signing in -----------------------------------------------------------------------


def test_passkeys_are_offered_at_the_sign_in_to_whoever_can_use_them(visitor: Visitor):
    page = visitor.get("/login").text
    assert 'autocomplete="username webauthn"' in page
    assert re.search(r'data-passkey="get" data-autofill hidden', page)
    assert "<noscript>" in page


def test_where_somebody_wanted_to_go_is_kept_through_each_step(
    visitor: Visitor, app: Flask, person: str
):
    give_passkey(app, person)
    with app.app_context():
        someone = find_user(app, person)
        totp = app.extensions["security"].totp_factory
        someone.tf_totp_secret = totp.generate_totp_secret()
        someone.tf_primary_method = "authenticator"
        db.session.commit()
    answer = visitor.submit(
        "/login?next=/account/activity",
        {"email": person, "password": GOOD_PASSWORD, "next": "/account/activity"},
    )
    choose = answer.headers["Location"]
    assert choose.startswith("/login/factor")
    page = visitor.get(choose).text
    assert re.findall(r'name="which" value="(\w+)"', page) == [
        "webauthn",
        "authenticator",
    ]
    step = visitor.submit(choose, {"which": "webauthn"}).headers["Location"]
    assert 'name="next" value="/account/activity"' in visitor.get(step).text
    step = visitor.submit(choose, {"which": "authenticator"}).headers["Location"]
    wrong = visitor.submit(step, {"code": "12", "next": "/account/activity"})
    assert 'name="next" value="/account/activity"' in wrong.text
    done = visitor.submit(
        "/login/code",
        {"code": totp_code(app, person), "next": "/account/activity"},
    )
    assert done.headers["Location"] == "/account/activity"


@pytest.mark.parametrize("path", ["/login/code", "/login/factor", "/login/recovery"])
def test_a_second_step_without_the_first_leads_to_the_sign_in(
    visitor: Visitor, path: str
):
    assert "Please sign in again" in text_of(visitor, path)


# --- Hostile words --------------------------------------------------------------------


def test_no_page_runs_markup_of_an_address_or_a_name(visitor: Visitor, app: Flask):
    add_person(app, HOSTILE)
    visitor.sign_in(HOSTILE)
    give_passkey(app, HOSTILE, '"><img src=x onerror=alert(1)>')
    pages = [
        visitor.get(path).text
        for path in (
            *("/account", "/account/sessions", "/account/activity"),
            *("/account/second-factor", "/account/passkeys", "/account/authenticator"),
            *("/account/recovery-codes", "/verify", "/verify/passkey"),
            *("/change", "/change-email"),
        )
    ]
    pages.append(visitor.submit("/account/passkeys", {"name": "Phone"}).text)
    pages.append(visitor.submit("/verify/passkey", {}).text)
    pages.append(visitor.submit("/account/recovery-codes", {}).text)
    pages.append(
        visitor.submit("/account/authenticator", {"setup": "authenticator"}).text
    )
    other = Visitor(app, visitor.mailbox)
    half = other.submit("/login", {"email": HOSTILE, "password": GOOD_PASSWORD})
    pages.append(other.get(half.headers["Location"]).text)
    pages.append(other.submit("/login/passkey", {}).text)
    pages.append(other.submit("/login", {"email": HOSTILE, "password": "wrong"}).text)
    assert sum(HOSTILE.replace("'", "&#39;") in page for page in pages) > 3
    for page in pages:
        assert "'+alert`1`" not in page
        assert "<img src=x" not in page
        for script in re.findall(r"<script\b[^>]*>(.*?)</script>", page, re.DOTALL):
            assert script == ""


def test_what_a_browser_asks_a_passkey_for_is_in_no_page(visitor: Visitor, person: str):
    visitor.sign_in(person)
    page = visitor.submit("/account/passkeys", {"name": "Phone"}).text
    assert "challenge" not in page
    asked = visitor.send("/account/passkeys", {"name": "Phone"}).get_json()
    assert json.dumps(asked["response"]["credential_options"]["user"]["name"])
