"""Sign-up: an address is proven before anything is stored."""

from datetime import UTC, datetime, timedelta

import pytest
from flask import Flask
from sqlalchemy import func, select

from app.models import User
from bulwark.database import db
from tests.conftest import GOOD_PASSWORD, Visitor
from tests.sign_up import required

NEW = "new@example.org"

pytestmark = pytest.mark.usefixtures("public_sign_up")


def accounts(app: Flask) -> int:
    with app.app_context():
        return db.session.scalar(select(func.count()).select_from(User)) or 0


def test_somebody_signs_up_with_a_link_and_a_password(visitor: Visitor):
    visitor.submit("/register", {"email": NEW})
    visitor.create_account(visitor.link_in_last_letter())
    visitor.sign_in(NEW)
    assert visitor.is_signed_in()


def test_json_clients_sign_up_too(visitor: Visitor, app: Flask):
    headers = {
        "X-CSRFToken": visitor.csrf_token(),
        "Referer": "https://localhost/login",
    }
    asked = visitor.client.post("/register", json={"email": NEW}, headers=headers)
    link = visitor.link_in_last_letter()
    weak = visitor.client.post(link, json={"password": "short"}, headers=headers)
    right = {"password": GOOD_PASSWORD, **required(app, NEW)}
    made = visitor.client.post(link, json=right, headers=headers)
    again = visitor.client.post(link, json=right, headers=headers)
    assert [a.status_code for a in (asked, weak, made, again)] == [200, 400, 200, 400]
    assert "15 characters" in weak.text
    visitor.sign_in(NEW)
    assert visitor.is_signed_in()


def test_asking_for_an_account_stores_none(visitor: Visitor, app: Flask):
    for _ in range(3):
        visitor.submit("/register", {"email": NEW})
    assert accounts(app) == 0


def test_nobody_prepares_an_account_for_somebody_elses_address(
    visitor: Visitor, other_visitor: Visitor
):
    """A thief who signs up first has no link, and what they chose is nowhere."""
    thief, owner = visitor, other_visitor
    thief.submit("/register", {"email": NEW, "password": "the thief knows this one"})
    owner.create_account(owner.link_in_last_letter())
    thief.sign_in(NEW, "the thief knows this one")
    assert not thief.is_signed_in()
    owner.sign_in(NEW)
    assert owner.is_signed_in()


def test_opening_the_link_alone_does_nothing(visitor: Visitor, app: Flask):
    """Mail scanners open links before their reader does."""
    visitor.submit("/register", {"email": NEW})
    visitor.get(visitor.link_in_last_letter())
    assert accounts(app) == 0


def test_a_link_makes_one_account(visitor: Visitor, app: Flask):
    visitor.submit("/register", {"email": NEW})
    link = visitor.link_in_last_letter()
    visitor.create_account(link)
    assert visitor.get(link).headers["Location"] == "/register"
    assert accounts(app) == 1


def test_a_link_dies_after_a_day(
    visitor: Visitor, app: Flask, monkeypatch: pytest.MonkeyPatch
):
    visitor.submit("/register", {"email": NEW})
    link = visitor.link_in_last_letter()
    later = (datetime.now(UTC) + timedelta(hours=24, minutes=1)).timestamp()
    monkeypatch.setattr("itsdangerous.timed.time.time", lambda: later)
    assert visitor.get(link).headers["Location"] == "/register"


def test_a_link_that_was_changed_is_refused(visitor: Visitor):
    visitor.submit("/register", {"email": NEW})
    link = visitor.link_in_last_letter()
    for changed in (link[:-1], f"{link}x", "/register/x", link.replace(".", "")):
        assert visitor.get(changed).headers["Location"] == "/register"


def test_a_sign_up_with_an_existing_account_is_explained_by_email(
    visitor: Visitor, person: str
):
    visitor.submit("/register", {"email": person.upper()})
    body = visitor.letters()[-1].get_body(("plain",))
    assert body
    assert "already has an account" in body.get_content()
    assert visitor.link_in_last_letter() == "/reset"


def test_nobody_is_flooded_with_links(visitor: Visitor):
    for _ in range(7):
        answer = visitor.submit("/register", {"email": NEW})
        assert "We sent an email" in answer.text
    assert len(visitor.letters()) == 5


@pytest.mark.parametrize(
    "address",
    ["", "no address", "a@b", "a@example.org\r\nBcc: b@example.org", "a" * 300],
)
def test_what_is_no_address_is_refused(visitor: Visitor, address: str):
    answer = visitor.submit("/register", {"email": address})
    assert "That did not work" in answer.text
    assert visitor.letters() == []
