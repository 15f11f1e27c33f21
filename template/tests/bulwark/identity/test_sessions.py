"""Sessions: on the server, ended from anywhere, never for long."""

import hashlib
from datetime import timedelta

import pytest
from flask import Flask
from flask.sessions import SessionMixin
from sqlalchemy import select, text, update
from sqlalchemy.exc import OperationalError
from werkzeug.test import TestResponse

from app.models import User
from bulwark.database import db, utcnow
from bulwark.database import rows as stored_rows
from bulwark.identity import session_store, sessions
from bulwark.identity.sessions import UserSession
from tests.conftest import GOOD_PASSWORD, Visitor, add_person
from tests.support import JSON

NEW_PASSWORD = "seven brass kettles whistle"


def cookie(visitor: Visitor) -> str:
    found = visitor.client.get_cookie("__Host-session")
    assert found
    return found.value


def use(visitor: Visitor, value: str) -> None:
    """Put a copied cookie into a browser."""
    visitor.client.set_cookie("__Host-session", value, secure=True)


def sign_out(visitor: Visitor) -> TestResponse:
    return visitor.client.post(
        "/logout",
        data={"csrf_token": visitor.csrf_token("/change")},
        headers={"Referer": "https://localhost/account"},
    )


def age(app: Flask, **columns: timedelta) -> None:
    with app.app_context():
        values = {name: utcnow() - passed for name, passed in columns.items()}
        db.session.execute(update(UserSession).values(values))
        db.session.commit()


def rows(app: Flask) -> list[UserSession]:
    with app.app_context():
        return list(db.session.scalars(select(UserSession)))


def test_the_database_holds_only_a_hash_of_what_the_browser_holds(
    visitor: Visitor, app: Flask, person: str
):
    visitor.sign_in(person)
    token = cookie(visitor)
    with app.app_context():
        stored = repr(db.session.execute(text("SELECT * FROM sessions")).all())
    assert token not in stored
    assert hashlib.sha256(token.encode()).hexdigest() in stored


def test_the_session_cookie_contains_no_data(visitor: Visitor, person: str):
    visitor.sign_in(person)
    assert len(cookie(visitor)) == 43
    assert "." not in cookie(visitor)


def test_a_visitor_writes_nothing_to_the_database(visitor: Visitor, app: Flask):
    for _ in range(3):
        visitor.get("/login")
        visitor.get("/")
    assert rows(app) == []


def test_a_copied_cookie_is_dead_after_signing_out(
    visitor: Visitor, other_visitor: Visitor, person: str
):
    visitor.sign_in(person)
    copied = cookie(visitor)
    use(other_visitor, copied)
    assert other_visitor.is_signed_in()
    sign_out(visitor)
    assert not other_visitor.is_signed_in()


def test_signing_out_clears_what_the_browser_kept(visitor: Visitor, person: str):
    visitor.sign_in(person)
    assert sign_out(visitor).headers["Clear-Site-Data"] == '"cache", "storage"'


def test_each_sign_in_has_a_new_id_and_ends_the_old_one(
    visitor: Visitor, other_visitor: Visitor, app: Flask
):
    person = add_person(app, "zoe@example.org", totp=True)
    visitor.submit("/login", {"email": person, "password": GOOD_PASSWORD})
    half = cookie(visitor)
    visitor.sign_in(person)
    whole = cookie(visitor)
    assert half != whole
    use(other_visitor, half)
    assert "/login" in other_visitor.get("/login/code").headers["Location"]
    assert len(rows(app)) == 1


def test_an_id_that_an_attacker_chose_is_not_taken(visitor: Visitor, person: str):
    use(visitor, "A" * 43)
    visitor.sign_in(person)
    assert cookie(visitor) != "A" * 43
    assert visitor.is_signed_in()


def test_a_signed_cookie_that_names_a_person_signs_nobody_in(
    visitor: Visitor, app: Flask, person: str
):
    """Even with the secret key: who is signed in is known to the database alone."""
    with app.app_context():
        someone = app.extensions["security"].datastore.find_user(email=person)
        value = {"_user_id": someone.fs_uniquifier, "_fresh": True}
        signer = app.session_interface.get_signing_serializer(app)  # type: ignore[attr-defined]
        use(visitor, signer.dumps(value))
    assert not visitor.is_signed_in()
    assert rows(app) == []


@pytest.mark.parametrize(
    ("passed", "alive"),
    [(timedelta(minutes=59), True), (timedelta(minutes=60, seconds=1), False)],
    ids=["within", "after"],
)
def test_an_idle_session_ends_after_an_hour(
    visitor: Visitor, app: Flask, person: str, passed: timedelta, alive: bool
):
    visitor.sign_in(person)
    age(app, last_used_at=passed)
    assert visitor.is_signed_in() is alive
    assert len(rows(app)) == (1 if alive else 0)


@pytest.mark.parametrize(
    ("passed", "alive"),
    [(timedelta(hours=23, minutes=59), True), (timedelta(hours=24, seconds=1), False)],
    ids=["within", "after"],
)
def test_each_session_ends_after_a_day(
    visitor: Visitor, app: Flask, person: str, passed: timedelta, alive: bool
):
    visitor.sign_in(person)
    age(app, created_at=passed)
    assert visitor.is_signed_in() is alive


def test_a_half_signed_in_session_ends_after_ten_minutes(visitor: Visitor, app: Flask):
    person = add_person(app, "zoe@example.org", totp=True)
    visitor.submit("/login", {"email": person, "password": GOOD_PASSWORD})
    assert visitor.get("/login/code").status_code == 200
    age(app, created_at=timedelta(minutes=10, seconds=1))
    assert visitor.get("/login/code").status_code == 302


def test_using_a_session_keeps_it_and_writes_once_a_minute(
    visitor: Visitor, app: Flask, person: str
):
    visitor.sign_in(person)
    age(app, last_used_at=timedelta(minutes=59))
    visitor.get("/account")
    assert utcnow() - rows(app)[0].last_used_at < timedelta(minutes=1)
    before = rows(app)[0].last_used_at
    visitor.get("/account")
    assert rows(app)[0].last_used_at == before


def change_password(visitor: Visitor, person: str) -> None:
    visitor.submit("/change", {"password": GOOD_PASSWORD, "new_password": NEW_PASSWORD})


def change_address(visitor: Visitor, person: str) -> None:
    visitor.submit("/change-email", {"email": "zoe@example.net"})
    visitor.submit(visitor.link_in_last_letter(), {})


def add_app(visitor: Visitor, person: str) -> None:
    headers = {
        "X-CSRFToken": visitor.csrf_token("/change"),
        "Referer": "https://localhost/account",
    }
    begun = visitor.client.post(
        "/account/authenticator", json={"setup": "authenticator"}, headers=headers
    ).get_json()["response"]
    from passlib.totp import TOTP

    code = TOTP(begun["tf_authr_b32key"]).generate().token
    answer = visitor.client.post(
        f"/account/authenticator/{begun['tf_state_token']}",
        json={"code": code},
        headers=headers,
    )
    assert answer.status_code == 200


@pytest.mark.parametrize("change", [change_password, change_address, add_app])
def test_a_change_of_what_signs_in_ends_all_other_sessions(
    visitor: Visitor, other_visitor: Visitor, app: Flask, person: str, change
):
    visitor.sign_in(person)
    other_visitor.sign_in(person)
    change(visitor, person)
    assert visitor.is_signed_in()
    assert not other_visitor.is_signed_in()
    assert len(rows(app)) == 1


def test_a_password_reset_ends_all_sessions(
    visitor: Visitor, other_visitor: Visitor, app: Flask, person: str
):
    other_visitor.sign_in(person)
    visitor.submit("/reset", {"email": person})
    visitor.submit(visitor.link_in_last_letter(), {"password": NEW_PASSWORD})
    assert not other_visitor.is_signed_in()
    assert rows(app) == []


def test_a_disabled_account_is_out_at_once_and_half_way_in_too(
    visitor: Visitor, other_visitor: Visitor, app: Flask
):
    person = add_person(app, "zoe@example.org", totp=True)
    visitor.sign_in(person)
    other_visitor.submit("/login", {"email": person, "password": GOOD_PASSWORD})
    with app.app_context():
        db.session.execute(update(User).values(active=False))
        db.session.commit()
    assert not visitor.is_signed_in()
    assert other_visitor.get("/login/code").status_code == 302


def test_a_new_identifier_alone_ends_a_session(
    visitor: Visitor, app: Flask, person: str
):
    visitor.sign_in(person)
    with app.app_context():
        db.session.execute(update(User).values(fs_uniquifier="f" * 32))
        db.session.commit()
    assert not visitor.is_signed_in()


@pytest.mark.promise("one-query")
def test_a_request_of_somebody_signed_in_takes_one_query(
    visitor: Visitor, app: Flask, person: str, statements: list[str]
):
    visitor.sign_in(person)
    statements.clear()
    visitor.get("/dev/none", headers=JSON)  # nothing of the team's
    with app.app_context():
        # SQLAlchemy itself loads the users of some services.
        most = 1 if stored_rows.is_plain(User) else 3
    assert len([s for s in statements if not s.startswith("PRAGMA")]) <= most


def test_the_database_away_is_no_sign_out(
    visitor: Visitor, app: Flask, person: str, monkeypatch: pytest.MonkeyPatch
):
    def away(*_: object, **__: object) -> None:
        raise OperationalError("SELECT", {}, Exception("away"))

    visitor.sign_in(person)
    with monkeypatch.context() as patch:
        patch.setattr(stored_rows, "fetch", away)
        answer = visitor.get("/account")
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "5"
    assert "__Host-" not in str(answer.headers.getlist("Set-Cookie"))
    assert visitor.is_signed_in()


def test_a_full_disk_lets_people_read_on(
    visitor: Visitor, app: Flask, person: str, monkeypatch: pytest.MonkeyPatch
):
    def full(*_: object) -> None:
        raise OperationalError("UPDATE", {}, Exception("disk full"))

    visitor.sign_in(person)
    visitor.get("/account")
    age(app, last_used_at=timedelta(minutes=2))
    monkeypatch.setattr(session_store, "save", full)
    assert visitor.get("/account").status_code == 200


def test_sessions_that_ended_are_forgotten(visitor: Visitor, app: Flask, person: str):
    visitor.sign_in(person)
    with app.app_context():
        sessions.forget_ended.call_local()
    assert len(rows(app)) == 1
    age(app, last_used_at=timedelta(hours=2))
    with app.app_context():
        sessions.forget_ended.call_local()
    assert rows(app) == []


def test_a_sign_in_while_the_password_changes_is_asked_for_again(
    visitor: Visitor, app: Flask, person: str, monkeypatch: pytest.MonkeyPatch
):
    insert = session_store.insert

    def insert_late(name: str, session: SessionMixin) -> str | None:
        db.session.rollback()
        db.session.execute(update(User).values(fs_uniquifier="x" * 32))
        db.session.commit()
        return insert(name, session)

    with monkeypatch.context() as patch:
        patch.setattr(session_store, "insert", insert_late)
        assert visitor.sign_in(person).status_code == 302
    assert not visitor.is_signed_in()
    assert rows(app) == []
    visitor.sign_in(person)
    assert visitor.is_signed_in()
