"""Second factors: authenticator app, recovery codes, passkeys; and Flask-Security's
traps around them, closed one by one."""

import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from passlib.totp import TOTP
from sqlalchemy import select, text, update

from app.models import User
from bulwark.crypto import DecryptionError
from bulwark.database import db
from bulwark.identity.models import Passkey, RecoveryCode
from bulwark.identity.security import second_factors
from bulwark.identity.security.settings import settings_for
from bulwark.settings import Config
from tests.conftest import GOOD_PASSWORD, Visitor, add_person, totp_code
from tests.passkey import SoftwarePasskey
from tests.support import (
    JSON,
    ask,
    begin_app,
    find_user,
    give_code,
    make_codes,
    register,
    use,
)

MOMENT = 1_800_000_000  # divisible by 30: a time step begins


@pytest.fixture
def with_app(app: Flask) -> str:
    """The address of somebody with an authenticator app."""
    return add_person(app, "zoe@example.org", totp=True)


def give_password(visitor: Visitor, email: str) -> Any:
    return visitor.submit("/login", {"email": email, "password": GOOD_PASSWORD})


# --- Authenticator app ---------------------------------------------------------------


def test_the_password_alone_signs_nobody_in_who_has_an_app(
    visitor: Visitor, with_app: str
):
    assert (
        give_password(visitor, with_app).headers["Location"].startswith("/login/code")
    )
    assert not visitor.is_signed_in()


def test_password_and_code_sign_in_and_lead_to_the_account(
    visitor: Visitor, app: Flask, with_app: str
):
    second_step = give_password(visitor, with_app).headers["Location"]
    answer = visitor.submit(second_step, {"code": totp_code(app, with_app)})
    assert answer.headers["Location"] == "/account"
    assert visitor.is_signed_in()


def test_a_code_works_once(
    visitor: Visitor, other_visitor: Visitor, app: Flask, with_app: str
):
    code = totp_code(app, with_app)
    give_password(visitor, with_app)
    give_password(other_visitor, with_app)
    give_code(visitor, code)
    give_code(other_visitor, code)
    assert visitor.is_signed_in()
    assert not other_visitor.is_signed_in()


def stop_clock(app: Flask, monkeypatch: pytest.MonkeyPatch, now: float) -> Any:
    factory = app.extensions["security"].totp_factory
    stopped = factory._totp.using(now=lambda: now)
    monkeypatch.setattr(factory, "_totp", stopped)
    return factory


@pytest.mark.parametrize("second", [0, 1, 15, 29])
def test_a_code_is_good_one_step_before_and_after_its_own(
    app: Flask, with_app: str, monkeypatch: pytest.MonkeyPatch, second: int
):
    """A grid of clocks that are up to two minutes off."""
    with app.test_request_context():
        someone = find_user(app, with_app)
        secret = someone.tf_totp_secret
        factory = stop_clock(app, monkeypatch, MOMENT + second)
        for off in range(-120, 121, 15):
            db.session.execute(update(User).values(totp_counter=None))
            at = MOMENT + second + off
            code = factory._totp.from_source(secret).generate(at).token
            accepted = factory.verify_totp(code, secret, someone, window=30)
            assert accepted is (abs(at // 30 - MOMENT // 30) <= 1), off


@pytest.mark.parametrize(("off", "good"), [(-60, False), (-30, True), (60, False)])
def test_the_sign_in_page_takes_no_code_of_two_steps_away(
    visitor: Visitor,
    app: Flask,
    with_app: str,
    monkeypatch: pytest.MonkeyPatch,
    off: int,
    good: bool,
):
    """Stock, it takes codes that are 110 seconds off."""
    factory = stop_clock(app, monkeypatch, MOMENT)
    with app.app_context():
        secret = find_user(app, with_app).tf_totp_secret
    give_password(visitor, with_app)
    give_code(visitor, factory._totp.from_source(secret).generate(MOMENT + off).token)
    assert visitor.is_signed_in() is good


def test_an_older_code_is_refused_after_a_newer_one(
    app: Flask, with_app: str, monkeypatch: pytest.MonkeyPatch
):
    with app.test_request_context():
        someone = find_user(app, with_app)
        secret = someone.tf_totp_secret
        factory = stop_clock(app, monkeypatch, MOMENT)
        seed = factory._totp.from_source(secret)
        older, newer = seed.generate(MOMENT - 30).token, seed.generate(MOMENT).token
        assert factory.verify_totp(newer, secret, someone, window=30)
        assert not factory.verify_totp(older, secret, someone, window=30)


def test_one_persons_code_does_not_use_up_anothers(
    visitor: Visitor, app: Flask, with_app: str
):
    other = add_person(app, "yan@example.org", totp=True)
    visitor.sign_in(with_app)
    with app.app_context():
        assert find_user(app, with_app).totp_counter is not None
        assert find_user(app, other).totp_counter is None


def test_a_seed_is_unreadable_and_bound_to_its_row(app: Flask, with_app: str):
    add_person(app, "yan@example.org", totp=True)
    with app.app_context():
        zoe, yan = db.session.scalars(select(User).order_by(User.id)).all()
        seed = app.extensions["security"].totp_factory.get_totp_b32_key(
            zoe.tf_totp_secret
        )
        stored = db.session.execute(text("SELECT sealed_totp_secret FROM users")).all()
        assert seed.encode() not in b"".join(bytes(row[0]) for row in stored)
        zoe.sealed_totp_secret, yan.sealed_totp_secret = (
            yan.sealed_totp_secret,
            zoe.sealed_totp_secret,
        )
        for someone in (zoe, yan):
            with pytest.raises(DecryptionError):
                someone.tf_totp_secret  # noqa: B018


def test_an_app_is_added_once_it_shows_the_right_code(
    visitor: Visitor, app: Flask, person: str
):
    visitor.sign_in(person)
    key, state = begin_app(visitor)
    wrong = visitor.send(f"/account/authenticator/{state}", {"code": "000000"})
    assert wrong.status_code == 400
    with app.app_context():
        assert not find_user(app, person).has_second_factor
    code = TOTP(key).generate().token
    assert visitor.send(f"/account/authenticator/{state}", {"code": code}).status_code
    with app.app_context():
        assert find_user(app, person).has_second_factor


def test_the_seed_is_not_in_what_the_browser_keeps(visitor: Visitor, person: str):
    visitor.sign_in(person)
    key, state = begin_app(visitor)
    assert key not in state
    cookie = visitor.client.get_cookie("__Host-session")
    assert cookie
    assert key not in cookie.value


def test_the_code_that_added_an_app_does_not_sign_in(
    visitor: Visitor, other_visitor: Visitor, person: str
):
    visitor.sign_in(person)
    key, state = begin_app(visitor)
    code = TOTP(key).generate().token
    visitor.send(f"/account/authenticator/{state}", {"code": code})
    give_password(other_visitor, person)
    give_code(other_visitor, code)
    assert not other_visitor.is_signed_in()


def test_codes_by_email_are_not_offered(visitor: Visitor, person: str):
    visitor.sign_in(person)
    assert visitor.send("/account/authenticator", {"setup": "email"}).status_code == 400
    assert visitor.letters() == []


def test_where_a_setting_allows_it_a_code_by_email_is_a_second_factor(
    visitor: Visitor,
    other_visitor: Visitor,
    app: Flask,
    person: str,
    monkeypatch: pytest.MonkeyPatch,
):
    allowed = settings_for(replace(config_of(app), email_codes=True))
    name = "SECURITY_TWO_FACTOR_ENABLED_METHODS"
    monkeypatch.setitem(app.config, name, allowed[name])
    visitor.sign_in(person)
    begun = visitor.send("/account/authenticator", {"setup": "email"}).get_json()
    state = begun["response"]["tf_state_token"]
    sent = {"code": code_in_last_letter(visitor)}
    assert visitor.send(f"/account/authenticator/{state}", sent).status_code == 200
    with app.app_context():
        find_user(app, person).totp_counter = None
        db.session.commit()
    give_password(other_visitor, person)
    assert not other_visitor.is_signed_in()
    code = code_in_last_letter(other_visitor)
    give_password(other_visitor, person)
    give_code(other_visitor, code)
    assert other_visitor.is_signed_in()
    visitor.client.delete_cookie("__Host-session")
    give_password(visitor, person)
    give_code(visitor, code)
    assert not visitor.is_signed_in()


def code_in_last_letter(visitor: Visitor) -> str:
    for letter in reversed(visitor.letters()):
        body = letter.get_body(("plain",))
        if body and (found := re.search(r"\n(\d{6})\s", body.get_content())):
            return found[1]
    raise AssertionError("no email has a code")


def config_of(app: Flask) -> Config:
    settings: Config = app.extensions["bulwark"]
    return settings


def test_an_account_that_was_locked_half_way_in_stays_out(
    visitor: Visitor, app: Flask, with_app: str
):
    """Flask-Security does not ask at the second step."""
    give_password(visitor, with_app)
    with app.app_context():
        db.session.execute(update(User).values(active=False))
        db.session.commit()
    give_code_json(visitor, totp_code(app, with_app))
    with app.app_context():
        db.session.execute(update(User).values(active=True))
        db.session.commit()
    assert not visitor.is_signed_in()


def give_code_json(visitor: Visitor, code: str) -> Any:
    return visitor.send("/login/code", {"code": code})


def test_a_link_to_the_code_page_signs_nobody_out(visitor: Visitor, with_app: str):
    visitor.sign_in(with_app)
    assert visitor.get("/login/code").headers["Location"] == "/account"
    assert visitor.is_signed_in()


def test_no_page_emails_the_administrator_for_help(visitor: Visitor, with_app: str):
    give_password(visitor, with_app)
    answer = visitor.get("/login/lost")
    assert answer.headers["Location"] == "/login/recovery"
    assert visitor.letters() == []


# --- Recovery codes ------------------------------------------------------------------


def recover(visitor: Visitor, email: str, code: str) -> None:
    give_password(visitor, email)
    visitor.submit("/login/recovery", {"code": code})


def test_a_recovery_code_stands_in_for_a_lost_phone_once(
    visitor: Visitor, other_visitor: Visitor, with_app: str
):
    visitor.sign_in(with_app)
    codes = make_codes(visitor)
    assert len(set(codes)) == 10
    recover(other_visitor, with_app, codes[0])
    assert other_visitor.is_signed_in()
    other_visitor.client.delete_cookie("__Host-session")
    recover(other_visitor, with_app, codes[0])
    assert not other_visitor.is_signed_in()
    recover(other_visitor, with_app, codes[1])
    assert other_visitor.is_signed_in()


def test_a_recovery_code_is_taken_as_people_type_it(
    visitor: Visitor, other_visitor: Visitor, with_app: str
):
    visitor.sign_in(with_app)
    code = make_codes(visitor)[0]
    recover(other_visitor, with_app, f" {code.upper().replace('-', ' ')} ")
    assert other_visitor.is_signed_in()


def test_recovery_codes_are_shown_once_and_stored_unreadable(
    visitor: Visitor, app: Flask, with_app: str
):
    visitor.sign_in(with_app)
    codes = make_codes(visitor)
    later = visitor.get("/account/recovery-codes?show_codes=1").text
    shown = visitor.get("/account/recovery-codes", headers=JSON).get_json()["response"]
    assert shown["recovery_codes"] == []
    stored = ""
    with app.app_context():
        for table in db.metadata.tables:
            stored += repr(db.session.execute(text(f"SELECT * FROM {table}")).all())
    for code in codes:
        for spelled in (code, code.replace("-", "")):
            assert spelled not in later
            assert spelled not in stored


def test_a_recovery_code_has_128_bits():
    """OWASP ASVS 5.0, 6.5.2: with less it would need a slow hash."""
    codes = [second_factors._new_code().replace("-", "") for _ in range(200)]
    assert {len(code) for code in codes} == {26}
    for place in range(25):  # five bits each; the last one has three
        assert len({code[place] for code in codes}) > 16


def test_new_recovery_codes_end_the_old_ones(
    visitor: Visitor, other_visitor: Visitor, with_app: str
):
    visitor.sign_in(with_app)
    old = make_codes(visitor)
    make_codes(visitor)
    recover(other_visitor, with_app, old[0])
    assert not other_visitor.is_signed_in()


def test_a_recovery_code_of_somebody_else_is_refused(
    visitor: Visitor, other_visitor: Visitor, app: Flask, with_app: str
):
    other = add_person(app, "yan@example.org", totp=True)
    visitor.sign_in(with_app)
    recover(other_visitor, other, make_codes(visitor)[0])
    assert not other_visitor.is_signed_in()


def test_recovery_codes_go_with_the_last_factor(
    visitor: Visitor, app: Flask, with_app: str
):
    visitor.sign_in(with_app)
    make_codes(visitor)
    visitor.send("/account/authenticator", {"setup": "disable"})
    with app.app_context():
        assert db.session.scalars(select(RecoveryCode)).all() == []


# --- Passkeys ------------------------------------------------------------------------


@pytest.fixture
def key(visitor: Visitor, person: str) -> SoftwarePasskey:
    """A passkey of `person`, who has signed out again."""
    key = SoftwarePasskey()
    visitor.sign_in(person)
    assert register(visitor, key).status_code == 200
    visitor.client.delete_cookie("__Host-session")
    return key


def test_a_passkey_alone_signs_in(visitor: Visitor, key: SoftwarePasskey):
    use(visitor, key)
    assert visitor.is_signed_in()


def test_a_passkey_is_the_second_step_after_a_password(
    visitor: Visitor, person: str, key: SoftwarePasskey
):
    """Stock, a key for the first step leaves the password as the only one."""
    assert (
        give_password(visitor, person).headers["Location"].startswith("/login/passkey")
    )
    assert not visitor.is_signed_in()
    options, state = ask(visitor)
    assert [c["type"] for c in options["allowCredentials"]] == ["public-key"]
    visitor.send(f"/login/passkey/{state}", {"credential": key.sign(options)})
    assert visitor.is_signed_in()


def test_any_kind_of_authenticator_is_taken_if_it_verifies_its_user(
    visitor: Visitor, person: str
):
    """By default, browsers accept security keys only, and phones fail."""
    visitor.sign_in(person)
    begun = visitor.send("/account/passkeys", {"name": "Phone"}).get_json()
    wanted = begun["response"]["credential_options"]["authenticatorSelection"]
    assert "authenticatorAttachment" not in wanted
    assert wanted["userVerification"] == "required"
    assert wanted["residentKey"] == "required"
    lazy = SoftwarePasskey(verifies=False)
    assert register(visitor, lazy, "Lazy").status_code == 400


def test_a_passkey_that_does_not_verify_its_user_signs_nobody_in(
    visitor: Visitor, key: SoftwarePasskey
):
    key.verifies = False
    assert use(visitor, key).status_code == 400
    assert not visitor.is_signed_in()


def test_an_answer_of_a_passkey_works_once(
    visitor: Visitor, other_visitor: Visitor, person: str
):
    """Passkeys in phones have no counter, so only the challenge reveals a replay."""
    key = SoftwarePasskey(counts=False)
    visitor.sign_in(person)
    register(visitor, key)
    visitor.client.delete_cookie("__Host-session")
    options, state = ask(visitor)
    credential = {"credential": key.sign(options)}
    visitor.send(f"/login/passkey/{state}", credential)
    assert visitor.is_signed_in()
    other_visitor.send(f"/login/passkey/{state}", credential)
    assert not other_visitor.is_signed_in()


def test_a_passkey_of_somebody_else_does_not_finish_my_sign_in(
    visitor: Visitor, other_visitor: Visitor, app: Flask, key: SoftwarePasskey
):
    other, own = add_person(app, "yan@example.org"), SoftwarePasskey()
    other_visitor.sign_in(other)
    register(other_visitor, own)
    other_visitor.client.delete_cookie("__Host-session")
    give_password(other_visitor, other)
    assert use(other_visitor, key).status_code == 400
    assert not other_visitor.is_signed_in()


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "http://localhost", "https://localhost.evil.example"],
)
def test_an_answer_given_to_another_site_is_refused(
    visitor: Visitor, key: SoftwarePasskey, origin: str
):
    key.origin = origin
    assert use(visitor, key).status_code == 400
    assert not visitor.is_signed_in()


def test_a_passkey_does_not_open_a_locked_account(
    visitor: Visitor, app: Flask, key: SoftwarePasskey
):
    """Stock, the form notes that the account is disabled, and goes on."""
    with app.app_context():
        db.session.execute(update(User).values(active=False))
        db.session.commit()
    assert use(visitor, key).status_code == 400
    assert not visitor.is_signed_in()
    with app.app_context():
        db.session.execute(update(User).values(active=True))
        db.session.commit()
    assert not visitor.is_signed_in()


def test_a_forged_answer_is_refused(visitor: Visitor, key: SoftwarePasskey):
    options, state = ask(visitor)
    answer = json.loads(key.sign(options))
    signature = answer["response"]["signature"]
    answer["response"]["signature"] = signature[:-4] + "AAAA"
    visitor.send(f"/login/passkey/{state}", {"credential": json.dumps(answer)})
    assert not visitor.is_signed_in()


@pytest.mark.parametrize("junk", ["", "{}", "[]", "x" * 1000, '{"id": 1}', "null"])
def test_junk_instead_of_an_answer_is_the_callers_fault(
    visitor: Visitor, key: SoftwarePasskey, junk: str
):
    _, state = ask(visitor)
    answer = visitor.send(f"/login/passkey/{state}", {"credential": junk})
    assert answer.status_code == 400


def test_every_passkey_is_good_for_both_steps_whatever_a_client_asks(
    visitor: Visitor, app: Flask, person: str
):
    visitor.sign_in(person)
    register(visitor, SoftwarePasskey(), usage="secondary")
    with app.app_context():
        assert db.session.scalars(select(Passkey.usage)).all() == ["first"]


def test_a_passkey_shows_that_it_is_still_you(
    visitor: Visitor, key: SoftwarePasskey, monkeypatch: pytest.MonkeyPatch
):
    use(visitor, key)
    later = datetime.now(UTC).replace(tzinfo=None) + timedelta(minutes=16)
    monkeypatch.setattr("flask_security.utils.naive_utcnow", lambda: later)
    assert "/verify" in visitor.get("/account/passkeys").headers["Location"]
    monkeypatch.setattr("time.time", lambda: later.replace(tzinfo=UTC).timestamp())
    assert use(visitor, key, "/verify/passkey").status_code == 200
    assert visitor.get("/account/passkeys").status_code == 200


def test_somebody_elses_passkey_does_not_show_that_it_is_you(
    visitor: Visitor, other_visitor: Visitor, app: Flask, key: SoftwarePasskey
):
    other_visitor.sign_in(add_person(app, "yan@example.org"))
    assert use(other_visitor, key, "/verify/passkey").status_code == 400


def test_a_removed_passkey_signs_nobody_in(visitor: Visitor, key: SoftwarePasskey):
    use(visitor, key)
    visitor.send("/account/passkeys/remove", {"name": "Phone"})
    visitor.client.delete_cookie("__Host-session")
    assert use(visitor, key).status_code == 400
    assert not visitor.is_signed_in()


def test_asking_for_a_passkey_never_reveals_who_has_one(
    visitor: Visitor, person: str, key: SoftwarePasskey
):
    known = visitor.send("/login/passkey", {"identity": person}).get_json()["response"]
    assert not known["credential_options"].get("allowCredentials")
