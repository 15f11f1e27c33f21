"""Guessing: secrets are tried so often and no more, and owners always get in."""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import select

from bulwark.audit.events import SecurityEvent
from bulwark.database import db, utcnow
from bulwark.identity import throttling
from bulwark.identity.security import password_hashing
from bulwark.identity.sessions import UserSession
from bulwark.web import attempts, rate_limits
from tests.conftest import GOOD_PASSWORD, Visitor, add_person, totp_code
from tests.passkey import SoftwarePasskey
from tests.sign_up import required
from tests.support import (
    begin_app,
    give_code,
    make_codes,
    register,
    use,
)

NEW_PASSWORD = "seven brass kettles whistle"
WRONG = "purple otter juggles lamp"
PASSWORDS, CODES = throttling.PASSWORD.tries, throttling.CODE.tries
NOBODY = "nobody@example.org"


@pytest.fixture
def owner(app: Flask) -> str:
    """The address of somebody with an authenticator app."""
    return add_person(app, "zoe@example.org", totp=True)


@pytest.fixture
def attacker(other_visitor: Visitor) -> Visitor:
    """Somebody else, with a browser that nobody signed in with."""
    return other_visitor


def events(app: Flask, *names: str) -> list[str]:
    """Return the names of what was recorded, in order, of these names."""
    with app.app_context():
        rows = db.session.scalars(select(SecurityEvent).order_by(SecurityEvent.id))
        return [row.name for row in rows if row.name in names]


def guess(visitor: Visitor, email: str, times: int) -> Any:
    """Try wrong passwords; return the last answer."""
    wrong = {"email": email, "password": WRONG}
    return visitor.submit("/login", wrong, times=times)


def later(monkeypatch: pytest.MonkeyPatch, minutes: int) -> None:
    """Let time go by for what is counted."""
    then = utcnow() + timedelta(minutes=minutes)
    monkeypatch.setattr(attempts, "utcnow", lambda: then)


# --- Passwords -----------------------------------------------------------------------


@pytest.mark.parametrize("email", ["zoe@example.org", NOBODY])
def test_an_address_is_tried_so_often_whether_it_has_an_account_or_not(
    attacker: Visitor, person: str, email: str
):
    assert guess(attacker, email, PASSWORDS).status_code == 200
    refused = attacker.submit("/login", {"email": email, "password": GOOD_PASSWORD})
    assert refused.status_code == 429
    assert not attacker.is_signed_in()


def test_who_is_refused_reads_for_how_long_and_how_to_get_in(
    attacker: Visitor, person: str
):
    refused = guess(attacker, person, PASSWORDS + 1)
    assert 14 * 60 < int(refused.headers["Retry-After"]) <= 15 * 60
    assert "Try again in 15 minutes." in refused.text
    assert "You can still sign in with a passkey" in refused.text
    assert f'value="{person}"' in refused.text, "the address is kept"
    assert 'role="alert"' in refused.text
    assert "autofocus" in refused.text


def test_a_script_is_refused_in_the_same_words(attacker: Visitor, person: str):
    for _ in range(PASSWORDS + 1):
        answer = attacker.send("/login", {"email": person, "password": WRONG})
    assert answer.status_code == 429
    assert int(answer.headers["Retry-After"]) > 0
    assert "15 minutes" in str(answer.get_json()["response"]["errors"])


def test_the_wait_ends(attacker: Visitor, person: str, monkeypatch: pytest.MonkeyPatch):
    guess(attacker, person, PASSWORDS + 1)
    later(monkeypatch, 16)
    attacker.sign_in(person)
    assert attacker.is_signed_in()


def test_a_wait_that_began_on_a_clock_that_was_wrong_ends_with_it(
    attacker: Visitor, person: str, monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as ahead:
        later(ahead, 24 * 60)
        guess(attacker, person, PASSWORDS + 1)
    attacker.sign_in(person)
    assert attacker.is_signed_in()


def test_no_more_than_a_hundred_in_a_row_however_slowly(
    attacker: Visitor, person: str, app: Flask, monkeypatch: pytest.MonkeyPatch
):
    """NIST SP 800-63B-4, 3.2.2."""
    for hour in range(throttling.IN_A_ROW // PASSWORDS):
        later(monkeypatch, 60 * hour)
        rate_limits.limiter.storage.reset()
        assert guess(attacker, person, PASSWORDS).status_code == 200
    later(monkeypatch, 60 * 24 * 30)
    rate_limits.limiter.storage.reset()
    refused = attacker.submit("/login", {"email": person, "password": GOOD_PASSWORD})
    assert refused.status_code == 429
    assert "set a new password by email" in refused.text
    assert events(app, "authn_login_fail_max") == ["authn_login_fail_max"]


def test_tries_that_are_sent_at_once_are_all_counted(app: Flask, person: str):
    """Counted before they are checked: 20 at once are ten tries and ten refusals."""
    answers = []

    def one(_: int) -> None:
        with app.test_request_context("/login", method="POST"):
            answers.append(throttling.count(throttling.PASSWORD, person, None))

    threads = [threading.Thread(target=one, args=(n,)) for n in range(20)]
    for thread in threads:
        thread.start()
        if db_is_one_connection(app):
            thread.join()
    for thread in threads:
        thread.join()
    assert sum(answer is None for answer in answers) == PASSWORDS


def db_is_one_connection(app: Flask) -> bool:
    """SQLite in memory is one connection, which threads can't share."""
    with app.app_context():
        return db.engine.dialect.name == "sqlite"


def test_a_try_is_counted_before_its_hash(
    attacker: Visitor, person: str, app: Flask, monkeypatch: pytest.MonkeyPatch
):
    context = app.extensions["security"].pwd_context
    guess(attacker, person, PASSWORDS)
    monkeypatch.setattr(context, "verify", lambda *_: pytest.fail("it was hashed"))
    monkeypatch.setattr(context, "hash", lambda *_: pytest.fail("it was hashed"))
    assert guess(attacker, person, 1).status_code == 429
    guess_at_nobody = {"email": NOBODY, "password": WRONG}
    with pytest.raises(pytest.fail.Exception):
        attacker.submit("/login", guess_at_nobody)


def test_the_right_password_is_no_guess(visitor: Visitor, owner: str):
    right = {"email": owner, "password": GOOD_PASSWORD}
    answer = visitor.submit("/login", right, times=PASSWORDS + 2)
    assert answer.headers["Location"].startswith("/login/code")


def test_signing_in_forgets_wrong_tries(attacker: Visitor, person: str):
    for _ in range(3):
        guess(attacker, person, PASSWORDS - 1)
        attacker.sign_in(person)
        assert attacker.is_signed_in()
        attacker.client.delete_cookie("__Host-session")
        attacker.client.delete_cookie("__Host-device")


def test_asking_again_counts_the_same_guesses(visitor: Visitor, person: str):
    visitor.sign_in(person)
    answer = visitor.submit("/verify", {"password": WRONG}, times=PASSWORDS)
    assert answer.status_code == 200
    refused = visitor.submit("/verify", {"password": GOOD_PASSWORD})
    assert refused.status_code == 429
    assert "minutes" in refused.text


def test_changing_the_password_counts_the_same_guesses(
    visitor: Visitor, app: Flask, person: str
):
    visitor.sign_in(person)
    wrong = {"password": WRONG, "new_password": NEW_PASSWORD}
    visitor.submit("/change", wrong, times=PASSWORDS)
    right = {"password": GOOD_PASSWORD, "new_password": NEW_PASSWORD}
    assert visitor.submit("/change", right).status_code == 429
    assert len(events(app, "authn_password_change_fail")) == PASSWORDS


def test_a_new_password_that_is_refused_is_no_guess_at_the_current_one(
    visitor: Visitor, app: Flask, person: str
):
    visitor.sign_in(person)
    for _ in range(PASSWORDS + 1):
        answer = visitor.submit(
            "/change", {"password": GOOD_PASSWORD, "new_password": "short"}
        )
    assert answer.status_code == 200
    assert events(app, "authn_password_change_fail") == []


# --- The owner gets in ---------------------------------------------------------------


def test_an_attacker_does_not_slow_the_owner_in_a_known_browser(
    visitor: Visitor, attacker: Visitor, person: str
):
    visitor.sign_in(person)
    visitor.client.delete_cookie("__Host-session")
    assert guess(attacker, person, PASSWORDS + 1).status_code == 429
    visitor.sign_in(person)
    assert visitor.is_signed_in()


def test_a_known_browser_guesses_no_more_often(visitor: Visitor, person: str):
    visitor.sign_in(person)
    visitor.client.delete_cookie("__Host-session")
    assert guess(visitor, person, PASSWORDS + 1).status_code == 429


def test_an_invented_device_cookie_is_not_a_known_browser(
    attacker: Visitor, person: str
):
    guess(attacker, person, PASSWORDS)
    attacker.client.set_cookie("__Host-device", "x" * 43, secure=True)
    assert guess(attacker, person, 1).status_code == 429


def test_the_owner_gets_in_with_a_passkey_and_the_tries_are_forgotten(
    visitor: Visitor, attacker: Visitor, person: str
):
    key = SoftwarePasskey()
    visitor.sign_in(person)
    register(visitor, key)
    visitor.client.delete_cookie("__Host-session")
    guess(attacker, person, PASSWORDS + 1)
    use(visitor, key)
    assert visitor.is_signed_in()
    assert guess(attacker, person, 1).status_code == 200


def test_the_owner_gets_in_with_a_password_reset(
    visitor: Visitor, attacker: Visitor, app: Flask, person: str
):
    guess(attacker, person, PASSWORDS + 1)
    visitor.submit("/reset", {"email": person})
    visitor.submit(visitor.link_in_last_letter(), {"password": NEW_PASSWORD})
    visitor.sign_in(person, NEW_PASSWORD)
    assert visitor.is_signed_in()


def test_a_password_reset_resets_the_limit_of_codes_too(
    visitor: Visitor, attacker: Visitor, app: Flask, owner: str
):
    guess_codes(attacker, owner, CODES + 1)
    visitor.submit("/reset", {"email": owner})
    visitor.submit(visitor.link_in_last_letter(), {"password": NEW_PASSWORD})
    visitor.submit("/login", {"email": owner, "password": NEW_PASSWORD})
    give_code(visitor, totp_code(app, owner))
    assert visitor.is_signed_in()


def test_reset_emails_are_limited_for_as_long_as_their_links_last(
    attacker: Visitor, visitor: Visitor, person: str
):
    """Whoever fills a mailbox keeps nobody out: what is there works."""
    pages = {attacker.submit("/reset", {"email": person}).status_code for _ in range(8)}
    assert pages == {200}
    assert len(visitor.letters()) == 5
    visitor.submit(visitor.link_in_last_letter(), {"password": NEW_PASSWORD})
    visitor.sign_in(person, NEW_PASSWORD)
    assert visitor.is_signed_in()


# --- Second factors ------------------------------------------------------------------


def guess_codes(visitor: Visitor, email: str, times: int) -> Any:
    """Give the right password, then wrong codes; return the last answer."""
    visitor.submit("/login", {"email": email, "password": GOOD_PASSWORD})
    return visitor.submit("/login/code", {"code": "000000"}, times=times)


def test_codes_are_tried_so_often_and_then_the_sign_in_ends(
    attacker: Visitor, app: Flask, owner: str
):
    assert guess_codes(attacker, owner, CODES).status_code == 200
    refused = give_code(attacker, totp_code(app, owner))
    assert refused.status_code == 429
    assert "Too many incorrect codes. Try again in 15 minutes." in refused.text
    assert not attacker.is_signed_in()
    with app.app_context():
        assert db.session.scalars(select(UserSession)).all() == []


def test_a_new_sign_in_brings_no_new_codes(attacker: Visitor, app: Flask, owner: str):
    guess_codes(attacker, owner, CODES)
    attacker.client.delete_cookie("__Host-session")
    assert guess_codes(attacker, owner, 1).status_code == 429


def test_a_script_reads_about_codes_in_json(attacker: Visitor, app: Flask, owner: str):
    guess_codes(attacker, owner, CODES)
    answer = attacker.send("/login/code", {"code": "000000"})
    assert answer.status_code == 429
    assert "15 minutes" in answer.get_json()["hint"]


def test_recovery_codes_are_tried_so_often_too(
    visitor: Visitor, attacker: Visitor, app: Flask, owner: str
):
    visitor.sign_in(owner)
    code = make_codes(visitor)[0]
    attacker.submit("/login", {"email": owner, "password": GOOD_PASSWORD})
    for _ in range(throttling.RECOVERY_CODE.tries):
        assert attacker.submit("/login/recovery", {"code": "x"}).status_code == 200
    assert attacker.submit("/login/recovery", {"code": code}).status_code == 429
    assert not attacker.is_signed_in()


def test_wrong_codes_leave_recovery_codes_to_the_owner(
    visitor: Visitor, attacker: Visitor, app: Flask, owner: str
):
    attacker.sign_in(owner)
    code = make_codes(attacker)[0]
    attacker.client.delete_cookie("__Host-session")
    guess_codes(attacker, owner, CODES + 1)
    visitor.submit("/login", {"email": owner, "password": GOOD_PASSWORD})
    visitor.submit("/login/recovery", {"code": code})
    assert visitor.is_signed_in()


def test_an_attacker_with_the_password_does_not_slow_a_known_browser(
    visitor: Visitor, attacker: Visitor, app: Flask, owner: str
):
    visitor.sign_in(owner)
    visitor.client.delete_cookie("__Host-session")
    assert guess_codes(attacker, owner, CODES + 1).status_code == 429
    visitor.sign_in(owner)
    assert visitor.is_signed_in()


def test_setting_up_an_app_is_not_guessing(visitor: Visitor, person: str):
    visitor.sign_in(person)
    _, state = begin_app(visitor)
    for _ in range(CODES + 2):
        answer = visitor.send(f"/account/authenticator/{state}", {"code": "000000"})
    assert answer.status_code == 400


# --- Events --------------------------------------------------------------------------

OF_SIGN_IN = (
    "authn_login_fail",
    "authn_login_fail_max",
    "authn_login_success",
    "authn_login_successafterfail",
    "authn_mfa_fail",
)


@pytest.mark.parametrize("email", ["zoe@example.org", NOBODY])
def test_each_wrong_password_is_one_event_and_reaching_the_limit_is_one(
    attacker: Visitor, app: Flask, person: str, email: str
):
    guess(attacker, email, PASSWORDS + 4)
    assert events(app, *OF_SIGN_IN) == [
        *(PASSWORDS * ["authn_login_fail"]),
        "authn_login_fail_max",
    ]


def test_a_try_at_a_locked_account_is_an_event_even_with_the_right_password(
    visitor: Visitor, app: Flask, person: str
):
    with app.app_context():
        app.extensions["security"].datastore.find_user(email=person).active = False
        db.session.commit()
    visitor.sign_in(person)
    assert events(app, *OF_SIGN_IN) == ["authn_login_fail"]


def test_each_wrong_code_is_one_event_and_reaching_the_limit_is_one(
    attacker: Visitor, app: Flask, owner: str
):
    guess_codes(attacker, owner, CODES + 1)
    guess_codes(attacker, owner, 1)
    assert events(app, *OF_SIGN_IN) == [
        *(CODES * ["authn_mfa_fail"]),
        "authn_login_fail_max",
    ]


@pytest.mark.parametrize("wrong", ["password", "code"])
def test_the_first_sign_in_after_wrong_tries_has_a_name_of_its_own(
    visitor: Visitor, app: Flask, owner: str, wrong: str
):
    if wrong == "password":
        guess(visitor, owner, 2)
    else:
        guess_codes(visitor, owner, 2)
    for _ in range(2):
        visitor.sign_in(owner)
        visitor.client.delete_cookie("__Host-session")
    assert events(app, *OF_SIGN_IN)[2:] == [
        "authn_login_successafterfail",
        "authn_login_success",
    ]


# --- One hash at a time --------------------------------------------------------------


@contextmanager
def all_places_taken() -> Iterator[None]:
    """Somebody's hash is running, and nobody could go before those who wait."""
    over = threading.Event()
    ranks = [password_hashing.FIRST] * (1 + password_hashing.KNOWN_PLACES)
    ranks += [
        password_hashing.Rank(unknown=True, tries=-1)
    ] * password_hashing.OTHER_PLACES
    turns = [password_hashing._queue.join(rank, over.wait) for rank in ranks]
    try:
        yield
    finally:
        over.set()
        for turn in turns:
            turn.result(5)


@contextmanager
def a_hash_that_takes_long() -> Iterator[None]:
    """The thread that hashes has work until the block ends."""
    done = threading.Event()
    running = password_hashing._hasher.submit(done.wait)
    try:
        yield
    finally:
        done.set()
        running.result(5)


@pytest.fixture
def busy() -> Iterator[None]:
    with all_places_taken():
        yield


def test_too_long_a_wait_is_503_with_retry_after(
    visitor: Visitor, person: str, busy: None
):
    answer = visitor.submit("/login", {"email": person, "password": GOOD_PASSWORD})
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "2"
    assert "Service temporarily unavailable" in answer.text
    assert "Try again in a few seconds." in answer.text
    answer = visitor.send("/login", {"email": person, "password": GOOD_PASSWORD})
    assert answer.get_json()["error"] == "Service temporarily unavailable"


def test_waiting_ends(visitor: Visitor, person: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(password_hashing, "PATIENCE", 0.01)
    with a_hash_that_takes_long():
        answer = visitor.submit("/login", {"email": person, "password": GOOD_PASSWORD})
    assert answer.status_code == 503
    monkeypatch.setattr(password_hashing, "PATIENCE", 5)
    visitor.sign_in(person)
    assert visitor.is_signed_in()


def test_pages_come_before_hashes(app: Flask):
    """Linux gives each thread a niceness of its own."""
    own = os.getpriority(os.PRIO_PROCESS, 0)
    hasher = password_hashing._hasher.submit(os.getpriority, os.PRIO_PROCESS, 0).result(
        5
    )
    nicest = min(19, own + password_hashing.NICENESS)
    assert hasher == (nicest if sys.platform == "linux" else own)
    assert os.getpriority(os.PRIO_PROCESS, 0) == own


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_hashes_in_a_thread_of_its_own():
    password_hashing._hasher.submit(int).result(5)
    child = os.fork()
    if child == 0:  # it never returns to pytest
        try:
            os._exit(password_hashing._hasher.submit(int, 7).result(5))
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


@pytest.mark.usefixtures("public_sign_up")
@pytest.mark.parametrize(
    "way", ["sign in", "nobody", "verify", "change", "reset", "sign up"]
)
def test_every_password_waits_its_turn(
    way: str, visitor: Visitor, app: Flask, person: str, request: pytest.FixtureRequest
):
    path, data = "/login", {"email": person, "password": GOOD_PASSWORD}
    if way == "nobody":
        data["email"] = NOBODY
    if way in ("verify", "change"):
        visitor.sign_in(person)
        path, data = (
            f"/{way}",
            {"password": GOOD_PASSWORD, "new_password": NEW_PASSWORD},
        )
    if way in ("reset", "sign up"):
        form = "/reset" if way == "reset" else "/register"
        visitor.submit(form, {"email": person if way == "reset" else NOBODY})
        path = visitor.link_in_last_letter()
        data = {"password": NEW_PASSWORD, **required(app, NOBODY)}
    token = visitor.csrf_token(path)
    request.getfixturevalue("busy")
    answer = visitor.client.post(
        path,
        data={"csrf_token": token, **data},
        headers={"Referer": "https://localhost/login"},
    )
    assert answer.status_code == 503


def test_asking_for_an_email_needs_no_turn(visitor: Visitor, person: str, busy: None):
    """In a storm of sign-ins the way back in stays open."""
    visitor.submit("/reset", {"email": person})
    assert len(visitor.letters()) == 1


def test_what_was_not_checked_is_not_counted(
    visitor: Visitor, person: str, monkeypatch: pytest.MonkeyPatch
):
    """Not even when its place was taken after it had been counted."""
    with monkeypatch.context() as patch, all_places_taken():
        patch.setattr(password_hashing, "refuse_when_full", lambda known: None)
        for _ in range(PASSWORDS + 1):
            answer = visitor.submit("/login", {"email": person, "password": WRONG})
            assert answer.status_code == 503
    visitor.sign_in(person)
    assert visitor.is_signed_in()
