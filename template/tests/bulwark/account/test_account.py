"""The security page of a person, and the pages of each step of signing in."""

import inspect
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import delete, select

from bulwark.account.activity import PAGE
from bulwark.audit.catalogue import CATALOGUE
from bulwark.audit.events import SecurityEvent
from bulwark.database import db, utcnow
from bulwark.identity.models import Passkey, RecoveryCode, Role
from bulwark.identity.sessions import UserSession
from bulwark.web import access
from tests.conftest import GOOD_PASSWORD, Visitor, add_person, totp_code
from tests.passkey import SoftwarePasskey

HOSTILE = "'+alert`1`+'@example.com"
JSON = {"Accept": "application/json"}
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"


def text_of(visitor: Visitor, path: str) -> str:
    answer = visitor.get(path, follow_redirects=True)
    assert answer.status_code == 200, path
    words: str = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", answer.text))
    return words


def person_in(app: Flask, email: str) -> Any:
    return app.extensions["security"].datastore.find_user(email=email)


def give_passkey(app: Flask, email: str, name: str = "Blue key") -> None:
    with app.app_context():
        db.session.add(
            Passkey(
                user_id=person_in(app, email).id,
                name=name,
                credential_id=name.encode(),
                public_key=b"",
                backup_state=False,
                device_type="single_device",
                usage="first",
                lastuse_datetime=utcnow(),
            )
        )
        db.session.commit()


def give_codes(app: Flask, email: str, count: int) -> None:
    with app.app_context():
        user_id = person_in(app, email).id
        db.session.add_all(
            RecoveryCode(user_id=user_id, code_hash=str(number))
            for number in range(count)
        )
        db.session.commit()


def session_ids(app: Flask, email: str) -> list[int]:
    with app.app_context():
        query = select(UserSession.id).where(
            UserSession.user_id == person_in(app, email).id
        )
        return list(db.session.scalars(query.order_by(UserSession.id)))


def revocations(app: Flask) -> list[SecurityEvent]:
    with app.app_context():
        query = select(SecurityEvent).where(SecurityEvent.name == "session_revoked")
        return list(db.session.scalars(query))


def post(visitor: Visitor, path: str, data: dict[str, str] | None = None) -> Any:
    """Press a button that stands on /account."""
    headers = {"Referer": "https://localhost/account"}
    token = visitor.csrf_token("/account")
    return visitor.client.post(
        path, data={"csrf_token": token, **(data or {})}, headers=headers
    )


# --- The security page ---------------------------------------------------------------


def test_one_page_shows_all_that_protects_an_account(
    visitor: Visitor, app: Flask, person: str
):
    visitor.sign_in(person)
    bare = text_of(visitor, "/account")
    assert "Only your password protects this account" in bare
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


# --- Sessions ------------------------------------------------------------------------


def test_sessions_are_listed_by_device_and_network(visitor: Visitor, person: str):
    visitor.client.environ_base["HTTP_USER_AGENT"] = FIREFOX
    visitor.sign_in(person)
    page = text_of(visitor, "/account/sessions")
    assert "Firefox on Linux" in page
    assert "127.0.0.1" in page
    assert "This session" in page
    (only,) = visitor.get("/account/sessions", headers=JSON).get_json()["sessions"]
    assert only["device"] == "Firefox on Linux"
    assert only["current"] is True


@pytest.mark.parametrize("way", ["form", "json"])
def test_a_session_is_ended_from_another_one(
    visitor: Visitor, other_visitor: Visitor, app: Flask, person: str, way: str
):
    other_visitor.sign_in(person)
    visitor.sign_in(person)
    path = f"/account/sessions/{session_ids(app, person)[0]}/end"
    if way == "json":
        assert visitor.send(path, {}).get_json() == {"ended": 1}
    else:
        assert post(visitor, path).headers["Location"] == "/account/sessions"
    assert visitor.is_signed_in()
    assert not other_visitor.is_signed_in()
    (event,) = revocations(app)
    assert event.details == {"ended": 1}


@pytest.mark.parametrize("way", ["form", "json"])
def test_a_session_of_somebody_else_is_not_there(
    visitor: Visitor, other_visitor: Visitor, app: Flask, person: str, way: str
):
    other = add_person(app, "yan@example.org")
    other_visitor.sign_in(other)
    visitor.sign_in(person)
    path = f"/account/sessions/{session_ids(app, other)[0]}/end"
    answer = visitor.send(path, {}) if way == "json" else post(visitor, path)
    assert answer.status_code == 404
    assert other_visitor.is_signed_in()
    assert revocations(app) == []


@pytest.mark.parametrize("number", ["0", "999999", "2147483648", "9" * 40, "x"])
def test_a_session_that_does_not_exist_is_not_there(
    visitor: Visitor, person: str, number: str
):
    visitor.sign_in(person)
    assert post(visitor, f"/account/sessions/{number}/end").status_code == 404


def test_all_other_sessions_end_at_once(
    visitor: Visitor, other_visitor: Visitor, app: Flask, person: str
):
    other_visitor.sign_in(person)
    visitor.sign_in(person)
    for _ in range(2):  # There is nothing left to end the second time, and no event.
        post(visitor, "/account/sessions/end-others")
    assert visitor.is_signed_in()
    assert not other_visitor.is_signed_in()
    assert len(revocations(app)) == 1


def test_no_other_site_can_end_a_session(visitor: Visitor, app: Flask, person: str):
    visitor.sign_in(person)
    (own,) = session_ids(app, person)
    for path in (f"/account/sessions/{own}/end", "/account/sessions/end-others"):
        assert visitor.client.post(path).status_code == 400
        assert visitor.get(path).status_code == 405
    assert visitor.is_signed_in()


# --- Activity ------------------------------------------------------------------------


def add_events(app: Flask, email: str, *names: str, **columns: Any) -> None:
    with app.app_context():
        columns.setdefault("user_id", person_in(app, email).id)
        columns.setdefault("method", "POST")
        for second, name in enumerate(names):
            at = utcnow() + timedelta(seconds=second)
            db.session.add(SecurityEvent(at=at, name=name, details={}, **columns))
        db.session.commit()


def test_a_person_reads_their_own_history_alone(
    visitor: Visitor, app: Flask, person: str
):
    other = add_person(app, "yan@example.org")
    add_events(app, other, "authn_recovery_code_used")
    add_events(app, person, "authz_fail", "authn_mfa_enrolled")
    visitor.sign_in(person)
    told = visitor.get("/account/activity", headers=JSON).get_json()["activity"]
    assert {event["name"] for event in told} == {
        "authn_login_success",
        "authn_mfa_enrolled",
    }
    page = text_of(visitor, "/account/activity")
    assert CATALOGUE["authn_mfa_enrolled"].user_text in page
    assert CATALOGUE["authn_recovery_code_used"].user_text not in page


def test_a_long_history_is_read_in_pages_newest_first(
    visitor: Visitor, app: Flask, person: str
):
    visitor.sign_in(person)
    add_events(app, person, *["authz_change"] * (2 * PAGE))
    seen, path = [], "/account/activity"
    for _ in range(3):
        answer = visitor.get(path, headers=JSON).get_json()
        seen += [event["id"] for event in answer["activity"]]
        path = f"/account/activity?before={answer['older_than']}"
    assert answer["older_than"] is None
    assert len(seen) == 2 * PAGE + 1
    assert seen == sorted(set(seen), reverse=True)
    assert "Older" in text_of(visitor, "/account/activity")


@pytest.mark.parametrize("before", ["-1", "0", "x", "", "9" * 30, "-" + "9" * 30])
def test_any_page_of_the_history_can_be_asked_for(
    visitor: Visitor, person: str, before: str
):
    visitor.sign_in(person)
    assert visitor.get(f"/account/activity?before={before}").status_code == 200


def test_the_history_says_who_else_did_it_and_not_from_where(
    visitor: Visitor, app: Flask, person: str
):
    visitor.sign_in(person)
    add_events(
        app, person, "authz_admin", actor_id=0, address="192.0.2.7", user_agent=FIREFOX
    )
    add_events(app, person, "authn_login_unlock", method=None)
    page = text_of(visitor, "/account/activity")
    assert "by an administrator" in page
    assert "by the operator of this service" in page
    assert "192.0.2.7" not in page
    assert "Firefox" not in page


# --- Setting up ----------------------------------------------------------------------


def begin_app(visitor: Visitor) -> str:
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


def test_codes_by_mail_are_a_choice_where_the_setting_allows_them(
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
    code = code_of(app, begin_app(visitor))
    done = visitor.submit("/login/code", {"code": code}, follow_redirects=True)
    assert done.request.path == "/account/recovery-codes"
    visitor.submit("/account/recovery-codes", {})
    assert visitor.get("/account/second-factor/done").headers["Location"] == "/account"


def test_a_mistyped_code_does_not_make_anybody_scan_twice(
    visitor: Visitor, app: Flask, person: str
):
    visitor.sign_in(person)
    key = begin_app(visitor)
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
        assert not person_in(app, person).mf_recovery_codes


def remove_passkey(visitor: Visitor, name: str) -> str:
    post(visitor, "/account/passkeys/remove", {"name": name})
    return text_of(visitor, "/account/passkeys")


def require_factor(app: Flask, email: str) -> None:
    with app.app_context():
        person_in(app, email).second_factor_required = True
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


# --- Somebody who must set up a factor -----------------------------------------------


@pytest.fixture
def newcomer(visitor: Visitor, app: Flask, person: str) -> Iterator[Visitor]:
    """Somebody signed in, who was given a role that requires a second factor."""
    visitor.sign_in(person)
    with app.app_context():
        role = Role(name="treasurer", permissions=[], requires_second_factor=True)
        someone = person_in(app, person)
        someone.roles.append(role)
        db.session.commit()
    yield visitor
    with app.app_context():
        db.session.execute(delete(Role).where(Role.name == "treasurer"))
        db.session.commit()


def routes_of_people(app: Flask) -> list[tuple[str, str]]:
    """Return each method and path that asks for somebody signed in."""
    found = []
    for rule in app.url_map.iter_rules():
        if access.declared_for(app, rule.endpoint) in (access.PUBLIC, None):
            continue  # None: other tests add routes, to see them refused.
        values = {
            name: 1 if type(converter).__name__ == "IntegerConverter" else "x"
            for name, converter in rule._converters.items()
        }
        _, path = rule.build(values) or ("", "")
        assert path, rule
        methods = (rule.methods or set()) - {"HEAD", "OPTIONS"}
        found += [(method, path) for method in sorted(methods)]
    return found


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
    asked = routes_of_people(app)
    assert len(asked) > 20
    for method, path in asked:
        if path in open_paths:
            continue
        page = newcomer.client.open(path, method=method, headers=headers)
        assert page.headers.get("Location") == "/account/second-factor", (method, path)
        script = newcomer.client.open(path, method=method, headers={**headers, **JSON})
        assert script.status_code == 403, (method, path)


def test_a_newcomer_reads_why_and_what_to_do(newcomer: Visitor):
    page = text_of(newcomer, "/account")
    assert "Your role treasurer requires a second factor" in page
    links = newcomer.get("/account/second-factor").text
    assert 'href="/account/passkeys"' in links
    assert 'href="/account/authenticator"' in links


def test_a_newcomer_who_has_set_up_a_factor_goes_on(newcomer: Visitor, app: Flask):
    newcomer.submit("/login/code", {"code": code_of(app, begin_app(newcomer))})
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
    visitor.submit("/login/code", {"code": code_of(app, begin_app(visitor))})
    assert visitor.get("/account").status_code == 200


@pytest.mark.usefixtures("strict")
def test_an_administrator_reads_that_the_service_requires_a_second_factor(
    visitor: Visitor, app: Flask, person: str
):
    visitor.sign_in(add_person(app, "ada@example.org", "administrator"))
    with app.app_context():
        number = person_in(app, person).id
    assert "This service requires one." in text_of(visitor, f"/admin/users/{number}")


# --- Signing out ---------------------------------------------------------------------


def is_of_the_base(app: Flask, endpoint: str) -> bool:
    view = inspect.unwrap(app.view_functions[endpoint])
    return bool(view.__module__.startswith("bulwark."))


def test_each_page_of_the_base_offers_to_sign_out(visitor: Visitor, app: Flask):
    """OWASP ASVS 5.0, 7.4.4."""
    visitor.sign_in(add_person(app, "ada@example.org", "administrator"))
    base = app.url_map.bind("")
    own = {
        path
        for method, path in routes_of_people(app)
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


# --- Signing in ----------------------------------------------------------------------


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
        someone = person_in(app, person)
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


# --- Hostile words -------------------------------------------------------------------


def test_no_page_runs_what_an_address_or_a_name_says(visitor: Visitor, app: Flask):
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
