"""The set-up of second factors, by choice and where it is required."""

import re
from collections.abc import Iterator
from dataclasses import replace

import pytest
from flask import Flask
from sqlalchemy import delete

from bulwark.database import db
from bulwark.identity.models import Role
from bulwark.web import problems
from tests.conftest import Visitor, add_person
from tests.passkey import SoftwarePasskey
from tests.support import (
    JSON,
    find_user,
    give_passkey,
    post,
    routes_of_users,
    text_of,
)

# --- Setting up -----------------------------------------------------------------------


def begin_app_on_page(visitor: Visitor) -> str:
    page = visitor.submit("/account/authenticator", {"setup": "authenticator"}).text
    found = re.search(r'<code class="key">([A-Z2-7 ]+)</code>', page)
    assert found
    assert 'src="data:image/svg+xml' in page
    return found[1].replace(" ", "")


def code_of(app: Flask, key: str) -> str:
    factory = app.extensions["security"].totp_factory._totp
    return str(factory(key=key, format="base32").generate().token)


def test_an_app_is_set_up_without_a_needless_choice(visitor: Visitor, person: str):
    visitor.sign_in(person)
    page = visitor.get("/account/authenticator").text
    assert 'type="radio"' not in page
    assert '<input type="hidden" name="setup" value="authenticator">' in page


def test_codes_by_email_are_a_choice_where_the_setting_allows_them(
    visitor: Visitor, app: Flask, person: str, monkeypatch: pytest.MonkeyPatch
):
    methods = ["authenticator", "email"]
    monkeypatch.setitem(app.config, "SECURITY_TWO_FACTOR_ENABLED_METHODS", methods)
    visitor.sign_in(person)
    page = visitor.get("/account/authenticator").text
    assert re.findall(r'type="radio" value="(\w+)"', page) == methods
    assert "<legend>" in page


def test_the_first_factor_leads_to_recovery_codes_and_the_next_does_not(
    visitor: Visitor, app: Flask, person: str
):
    visitor.sign_in(person)
    code = code_of(app, begin_app_on_page(visitor))
    done = visitor.submit("/login/code", {"code": code}, follow_redirects=True)
    assert done.request.path == "/account/recovery-codes"
    visitor.submit("/account/recovery-codes", {})
    assert visitor.get("/account/second-factor/done").headers["Location"] == "/account"


def test_a_mistyped_code_does_not_make_anybody_scan_twice(
    visitor: Visitor, app: Flask, person: str
):
    visitor.sign_in(person)
    key = begin_app_on_page(visitor)
    wrong = visitor.submit("/login/code", {"code": "000 000"})
    assert "This code is incorrect" in wrong.text
    assert 'value="000 000"' in wrong.text
    visitor.submit("/login/code", {"code": code_of(app, key)})
    assert "Authenticator app On" in text_of(visitor, "/account")


def test_recovery_codes_are_shown_when_they_are_made_and_never_again(
    visitor: Visitor, app: Flask, person: str
):
    visitor.sign_in(person)
    give_passkey(app, person)
    made = visitor.submit("/account/recovery-codes", {}).text
    codes = re.findall(r"<code>([a-z2-7-]{32})</code>", made)
    assert len(codes) == 10
    assert "recovery-codes.js" in made
    page = visitor.get("/account/recovery-codes?show_codes=1").text
    assert "<strong>10 left</strong>" in page
    assert "the old codes stop working" in page
    assert not any(code in page for code in codes)


def test_recovery_codes_need_a_factor_that_they_stand_in_for(
    visitor: Visitor, app: Flask, person: str
):
    visitor.sign_in(person)
    assert "add a second factor" in text_of(visitor, "/account/recovery-codes")
    refused = post(visitor, "/account/recovery-codes")
    assert "Set up a passkey or an authenticator app first" in refused.text
    with app.app_context():
        assert not find_user(app, person).mf_recovery_codes


def remove_passkey(visitor: Visitor, name: str) -> str:
    post(visitor, "/account/passkeys/remove", {"name": name})
    return text_of(visitor, "/account/passkeys")


def require_factor(app: Flask, email: str) -> None:
    with app.app_context():
        find_user(app, email).second_factor_required = True
        db.session.commit()


def test_a_passkey_has_any_name_and_is_removed_by_it(visitor: Visitor, person: str):
    visitor.sign_in(person)
    asked = visitor.send("/account/passkeys", {"name": "Zoë's phone, 2nd"}).get_json()
    answer = SoftwarePasskey().register(asked["response"]["credential_options"])
    path = f"/account/passkeys/{asked['response']['wan_state']}"
    assert visitor.send(path, {"credential": answer}).status_code == 200
    (key,) = visitor.get("/account", headers=JSON).get_json()["passkeys"]
    page = remove_passkey(visitor, key["name"])
    assert "was removed" in page
    assert "Add a passkey" in page
    assert visitor.get("/account", headers=JSON).get_json()["passkeys"] == []


def test_a_required_factor_can_be_exchanged_but_not_removed(
    visitor: Visitor, app: Flask, person: str
):
    visitor.sign_in(person)
    give_passkey(app, person, "Blue key")
    require_factor(app, person)
    assert "Add another one first" in remove_passkey(visitor, "Blue key")
    give_passkey(app, person, "Red key")
    assert "was removed" in remove_passkey(visitor, "Blue key")


def test_a_required_app_can_be_removed_only_once_there_is_a_passkey(
    visitor: Visitor, app: Flask
):
    boss = add_person(app, "boss@example.org", "administrator")
    visitor.sign_in(boss)
    assert "Remove the app" not in text_of(visitor, "/account/authenticator")
    visitor.submit("/account/authenticator", {"setup": "disable"})
    assert "Authenticator app On" in text_of(visitor, "/account")
    give_passkey(app, boss)
    assert "Remove the app" in text_of(visitor, "/account/authenticator")
    visitor.submit("/account/authenticator", {"setup": "disable"})
    assert "Authenticator app Off" in text_of(visitor, "/account")


# --- Somebody who must set up a factor ------------------------------------------------


@pytest.fixture
def newcomer(visitor: Visitor, app: Flask, person: str) -> Iterator[Visitor]:
    """Somebody signed in, who was given a role that requires a second factor."""
    visitor.sign_in(person)
    with app.app_context():
        role = Role(name="treasurer", permissions=[], requires_second_factor=True)
        someone = find_user(app, person)
        someone.roles.append(role)
        db.session.commit()
    yield visitor
    with app.app_context():
        db.session.execute(delete(Role).where(Role.name == "treasurer"))
        db.session.commit()


def test_a_newcomer_can_do_nothing_but_set_up_a_factor_or_leave(
    newcomer: Visitor, app: Flask
):
    open_paths = {
        *("/account/second-factor", "/account/authenticator", "/account/passkeys"),
        *("/account/authenticator/x", "/account/passkeys/x", "/account/recovery-codes"),
        *("/verify", "/verify/passkey", "/verify/passkey/x", "/logout"),
    }
    token = newcomer.csrf_token("/account/second-factor")
    headers = {"X-CSRFToken": token, "Referer": "https://localhost/"}
    asked = routes_of_users(app)
    assert len(asked) > 20
    for method, path in asked:
        if path in open_paths:
            continue
        page = newcomer.client.open(path, method=method, headers=headers)
        if page.mimetype == problems.MIMETYPE:  # of an API
            assert page.status_code == 403, (method, path)
        else:
            expected = "/account/second-factor"
            assert page.headers.get("Location") == expected, (method, path)
        script = newcomer.client.open(path, method=method, headers={**headers, **JSON})
        assert script.status_code == 403, (method, path)


def test_a_newcomer_reads_why_and_what_to_do(newcomer: Visitor):
    page = text_of(newcomer, "/account")
    assert "Your role treasurer requires a second factor" in page
    links = newcomer.get("/account/second-factor").text
    assert 'href="/account/passkeys"' in links
    assert 'href="/account/authenticator"' in links


def test_a_newcomer_who_has_set_up_a_factor_goes_on(newcomer: Visitor, app: Flask):
    newcomer.submit("/login/code", {"code": code_of(app, begin_app_on_page(newcomer))})
    assert newcomer.is_signed_in()


@pytest.fixture
def strict(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the service require a second factor of everybody."""
    settings = replace(app.extensions["bulwark"], require_second_factor=True)
    monkeypatch.setitem(app.extensions, "bulwark", settings)


def test_a_setting_requires_a_second_factor_of_everybody(
    visitor: Visitor, app: Flask, person: str, strict: None
):
    """OWASP ASVS 5.0, 6.3.3."""
    visitor.sign_in(person)
    assert visitor.get("/account").headers["Location"] == "/account/second-factor"
    assert visitor.get("/account", headers=JSON).status_code == 403
    page = text_of(visitor, "/account")
    assert "This service requires a second factor" in page
    visitor.submit("/login/code", {"code": code_of(app, begin_app_on_page(visitor))})
    assert visitor.get("/account").status_code == 200


@pytest.mark.usefixtures("strict")
def test_an_administrator_reads_that_the_service_requires_a_second_factor(
    visitor: Visitor, app: Flask, person: str
):
    visitor.sign_in(add_person(app, "ada@example.org", "administrator"))
    with app.app_context():
        number = find_user(app, person).id
    assert "This service requires one." in text_of(visitor, f"/admin/users/{number}")
