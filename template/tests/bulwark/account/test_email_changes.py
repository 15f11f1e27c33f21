"""The change of an address: by its owner alone, and the old address can stop it."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from flask import Flask
from sqlalchemy import select, update
from werkzeug.test import TestResponse

from bulwark.audit.events import SecurityEvent
from bulwark.database import db, utcnow
from bulwark.identity import accounts, email_changes
from bulwark.identity.email_changes import AddressChange
from bulwark.identity.hashed_tokens import hash_of
from tests.conftest import GOOD_PASSWORD, Visitor, add_person, name_of
from tests.support import find_user

NEW = "zoe@example.net"
TAKEN = "yan@example.org"
NEW_PASSWORD = "seven brass kettles hum"
LINK = re.compile(r"https://localhost(/change-email/\S+)")


def ask(visitor: Visitor, email: str = NEW) -> TestResponse:
    return visitor.submit("/change-email", {"email": email})


def links_to(visitor: Visitor, address: str) -> list[str]:
    """Return the links for a change in the emails to an address."""
    texts = [
        letter.get_body(("plain",)).get_content()  # type: ignore[union-attr]
        for letter in visitor.letters()
        if letter["To"] == address
    ]
    return [found for text in texts for found in LINK.findall(text)]


def has_account(app: Flask, email: str) -> bool:
    with app.app_context():
        return find_user(app, email) is not None


@pytest.fixture
def zoe(visitor: Visitor, person: str) -> Visitor:
    """Somebody who is signed in and has asked for `NEW`."""
    visitor.sign_in(person)
    ask(visitor)
    return visitor


@pytest.fixture
def link(zoe: Visitor) -> str:
    (link,) = links_to(zoe, NEW)
    return link


@pytest.fixture
def stop(zoe: Visitor, person: str) -> str:
    (link,) = links_to(zoe, person)
    return link


# --- Who confirms it, and how -----


def test_it_takes_a_click_by_who_is_signed_in(
    zoe: Visitor, app: Flask, person: str, link: str
):
    page = zoe.get(link).text
    assert person in page
    assert NEW in page
    assert has_account(app, person)
    assert zoe.submit(link, {}).headers["Location"] == "/account"
    assert NEW in zoe.get("/account").text
    assert not has_account(app, person)


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST"])
@pytest.mark.parametrize("who", ["nobody", "owner", "somebody else"])
def test_opening_the_link_changes_nothing(
    zoe: Visitor, other_visitor: Visitor, app: Flask, person: str, link: str,
    method: str, who: str,
):  # fmt: skip
    visitor = zoe if who == "owner" else other_visitor
    if who == "somebody else":
        visitor.sign_in(add_person(app, TAKEN))
    answer = visitor.client.open(link, method=method)
    if method == "POST":
        assert answer.status_code == 400, "without a CSRF token"
    assert has_account(app, person)
    assert not has_account(app, NEW)


def test_nobody_confirms_without_signing_in(
    zoe: Visitor, other_visitor: Visitor, app: Flask, person: str, link: str
):
    asked = other_visitor.get(link).headers["Location"]
    assert asked == f"/login?next={link}"
    token = other_visitor.csrf_token("/login")
    answer = other_visitor.client.post(
        link, data={"csrf_token": token}, headers={"Referer": "https://localhost/"}
    )
    assert answer.headers["Location"].startswith("/login")
    assert has_account(app, person)
    back = other_visitor.submit(
        asked, {"email": person, "password": GOOD_PASSWORD, "next": link}
    )
    assert back.headers["Location"] == link
    other_visitor.submit(link, {})
    assert has_account(app, NEW)


def test_nobody_else_confirms_it(
    zoe: Visitor, other_visitor: Visitor, app: Flask, person: str, link: str
):
    other_visitor.sign_in(add_person(app, TAKEN))
    token = other_visitor.csrf_token("/change-email")
    answer = other_visitor.client.post(
        link,
        data={"csrf_token": token},
        headers={"Referer": "https://localhost/change-email"},
    )
    assert answer.headers["Location"] == "/change-email"
    assert "another account" in other_visitor.get("/change-email").text
    assert has_account(app, person)
    assert has_account(app, TAKEN)


def test_a_script_confirms_it_as_well(zoe: Visitor, app: Flask, link: str):
    assert zoe.send(link, {}).get_json() == {
        "message": "Your email address was changed."
    }
    assert has_account(app, NEW)
    refused = zoe.send(link, {})
    assert refused.status_code == 400
    assert "already used" in refused.get_json()["error"]


# --- What ends the link -----


def refuses(visitor: Visitor, link: str) -> bool:
    """Return whether a link leads to a page that explains why it no longer works."""
    answer = visitor.get(link)
    if answer.headers.get("Location") != "/change-email":
        return False
    return "The link was already used, is expired" in visitor.get("/change-email").text


def test_it_works_once(zoe: Visitor, link: str):
    zoe.submit(link, {})
    assert refuses(zoe, link)


def test_it_works_for_an_hour(zoe: Visitor, app: Flask, link: str):
    with app.app_context():
        db.session.execute(update(AddressChange).values(expires_at=utcnow()))
        db.session.commit()
    assert refuses(zoe, link)
    with app.app_context():
        email_changes.forget_old.call_local()
        assert db.session.scalars(select(AddressChange)).all() == []


def test_a_later_request_ends_it(zoe: Visitor, link: str):
    ask(zoe, "zoe@example.com")
    assert refuses(zoe, link)


def test_a_new_password_ends_it(zoe: Visitor, link: str):
    zoe.submit("/change", {"password": GOOD_PASSWORD, "new_password": NEW_PASSWORD})
    assert refuses(zoe, link)


def test_a_reset_ends_it(zoe: Visitor, other_visitor: Visitor, person: str, link: str):
    other_visitor.submit("/reset", {"email": person})
    reset = other_visitor.link_in_last_letter()
    other_visitor.submit(reset, {"password": NEW_PASSWORD})
    zoe.sign_in(person, NEW_PASSWORD)
    assert refuses(zoe, link)


def test_a_lock_ends_it_for_good(zoe: Visitor, app: Flask, person: str, link: str):
    with app.app_context():
        find = app.extensions["security"].datastore.find_user
        accounts.lock(find(email=person), by=None, reason="test")
        db.session.commit()
    assert zoe.get(link).headers["Location"].startswith("/login")
    with app.app_context():
        accounts.unlock(find(email=person), by=None, reason="test")
        db.session.commit()
    zoe.sign_in(person)
    assert refuses(zoe, link)


def test_somebody_who_is_faster_gets_the_address(
    zoe: Visitor, app: Flask, person: str, link: str
):
    add_person(app, NEW)
    assert zoe.submit(link, {}).headers["Location"] == "/change-email"
    assert zoe.is_signed_in()
    assert has_account(app, person)


def test_of_many_at_once_one_changes_it(
    zoe: Visitor, app: Flask, person: str, link: str
):
    with app.app_context():
        token = link.rpartition("/")[2]
        user = find_user(app, person)
        waiting = email_changes.find_pending(user, token)
        assert waiting
        db.session.expunge_all()
    zoe.submit(link, {})
    with app.test_request_context():
        assert not email_changes.confirm(user, waiting)


def test_it_comes_with_a_new_token_and_ends_other_sessions(
    zoe: Visitor, other_visitor: Visitor, person: str, link: str
):
    other_visitor.sign_in(person)
    old = zoe.client.get_cookie("__Host-session")
    zoe.submit(link, {})
    assert not other_visitor.is_signed_in()
    assert zoe.is_signed_in()
    assert old
    other_visitor.client.set_cookie("__Host-session", old.value, secure=True)
    assert not other_visitor.is_signed_in()


def test_a_link_to_set_a_password_from_before_ends_with_the_change(
    zoe: Visitor, other_visitor: Visitor, app: Flask, person: str, link: str
):
    other_visitor.submit("/reset", {"email": person})
    reset = other_visitor.link_in_last_letter()
    assert other_visitor.get(reset).status_code == 200
    zoe.submit(link, {})
    assert other_visitor.get(reset).headers["Location"] == "/reset"
    other_visitor.sign_in(NEW)
    assert other_visitor.is_signed_in()


# --- Who is notified, and can stop it -----


def test_the_old_address_is_notified_of_the_request_and_of_the_change(
    zoe: Visitor, person: str, link: str, stop: str
):
    zoe.submit(link, {})
    sent, service = [(m["To"], m["Subject"]) for m in zoe.letters()], name_of(zoe.app)
    assert sent == [
        (person, f"Change of your email address requested at {service}"),
        (NEW, f"Confirm your address at {service}"),
        (NEW, f"Your address for {service} was changed"),
        (person, f"Your address for {service} was changed"),
    ]


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST"])
def test_opening_the_link_to_stop_it_stops_nothing(
    zoe: Visitor, other_visitor: Visitor, link: str, stop: str, method: str
):
    other_visitor.client.open(stop, method=method)
    assert zoe.get(link).status_code == 200


def test_the_old_address_stops_it_without_signing_in(
    zoe: Visitor, other_visitor: Visitor, app: Flask, person: str, link: str, stop: str
):
    answer = other_visitor.submit(stop, {})
    assert answer.headers["Location"] == "/reset"
    assert not zoe.is_signed_in()
    zoe.sign_in(person)
    assert refuses(zoe, link)
    with app.app_context():
        names = set(db.session.scalars(select(SecurityEvent.name)))
    assert "user_email_change_stopped" in names
    assert other_visitor.get(stop).status_code == 404


def test_the_link_to_stop_it_confirms_nothing_and_the_other_way_round(
    zoe: Visitor, other_visitor: Visitor, link: str, stop: str
):
    assert refuses(zoe, "/change-email/" + stop.rpartition("/")[2])
    wrong = "/change-email/stop/" + link.rpartition("/")[2]
    assert other_visitor.get(wrong).status_code == 404


def test_after_the_change_there_is_nothing_to_stop(
    zoe: Visitor, other_visitor: Visitor, link: str, stop: str
):
    zoe.submit(link, {})
    answer = other_visitor.get(stop)
    assert answer.status_code == 404
    assert f"mailto:{zoe.app.extensions['bulwark'].admin_email}" in answer.text


def test_the_database_holds_no_link(zoe: Visitor, app: Flask, link: str, stop: str):
    with app.app_context():
        (row,) = db.session.scalars(select(AddressChange))
        held = {str(value) for value in vars(row).values()}
    for path in (link, stop):
        token = path.rpartition("/")[2]
        assert token not in held
        assert hash_of(token) in held


# --- How often, and what it reveals -----


def test_one_stranger_is_sent_five_emails_an_hour(visitor: Visitor, app: Flask):
    for number in range(8):
        visitor.client.environ_base["REMOTE_ADDR"] = f"192.0.2.{number}"
        visitor.sign_in(add_person(app, f"person{number}@example.org"))
        assert "We sent an email to" in ask(visitor).text
        visitor.client.delete_cookie("__Host-session")
    assert len([m for m in visitor.letters() if m["To"] == NEW]) == 5


def test_one_account_asks_five_times_an_hour(visitor: Visitor, person: str):
    visitor.sign_in(person)
    for number in range(8):
        answer = ask(visitor, f"zoe{number}@example.net")
    assert "Too many requests. Try again in" in answer.text
    letters = visitor.letters()
    assert len([m for m in letters if m["To"] != person]) == 5
    assert len([m for m in letters if m["To"] == person]) == 5


def test_a_taken_address_gets_the_response_of_a_free_one_and_its_owner_an_email(
    visitor: Visitor, app: Flask, person: str
):
    add_person(app, TAKEN)
    visitor.sign_in(person)
    pages = {}
    for email in (NEW, TAKEN):
        text = ask(visitor, email).text.replace(email, "EMAIL")
        pages[email] = re.sub(r'value="[\w.-]{40,}"|nonce="[^"]+"', "", text)
    assert pages[NEW] == pages[TAKEN]
    to, service = [(m["To"], m["Subject"]) for m in visitor.letters()], name_of(app)
    assert (TAKEN, f"Your address at {service}") in to
    assert len([one for one in to if one[0] == person]) == 2
    assert links_to(visitor, TAKEN) == []


def test_a_taken_address_costs_the_same_queries(
    visitor: Visitor, app: Flask, person: str, statements: list[str]
):
    add_person(app, TAKEN)
    visitor.sign_in(person)
    ask(visitor, "first@example.net")
    costs = {}
    for email in (NEW, TAKEN):
        token = visitor.csrf_token("/change-email")
        statements.clear()
        visitor.client.post(
            "/change-email",
            data={"csrf_token": token, "email": email},
            headers={"Referer": "https://localhost/change-email"},
        )
        costs[email] = list(statements)
    assert costs[NEW] == costs[TAKEN]


def test_it_needs_a_recent_sign_in(
    zoe: Visitor, app: Flask, link: str, monkeypatch: pytest.MonkeyPatch
):
    later = datetime.now(UTC).replace(tzinfo=None) + timedelta(minutes=16)
    monkeypatch.setattr("flask_security.utils.naive_utcnow", lambda: later)
    assert zoe.get(link).headers["Location"] == f"/verify?next={link}"
