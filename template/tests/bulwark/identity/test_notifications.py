"""Notifications: emails about each change of an account's security, with what to do."""

import re
from dataclasses import replace
from datetime import timedelta
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, render_template
from jinja2 import StrictUndefined
from sqlalchemy import update

import bulwark
from bulwark import mail
from bulwark.audit import events, trail
from bulwark.audit.catalogue import CATALOGUE
from bulwark.audit.events import SecurityEvent
from bulwark.database import db, utcnow
from bulwark.identity import notifications
from bulwark.identity.notifications import NOTICES
from tests.conftest import GOOD_PASSWORD, Visitor, add_person
from tests.support import find_user

NEW_PASSWORD = "seven brass kettles whistle"
LINUX = "Mozilla/5.0 (X11; Linux x86_64; rv:144.0) Gecko/20100101 Firefox/144.0"


@pytest.fixture(autouse=True)
def named(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the service have a name and an administrator that the tests know."""
    settings = replace(
        app.extensions["bulwark"], name="Acme", admin_email="help@example.com"
    )
    monkeypatch.setitem(app.extensions, "bulwark", settings)


def text_of(letter: EmailMessage) -> str:
    body = letter.get_body(("plain",))
    assert body
    return str(body.get_content()).replace("\r\n", "\n")


def page_of(letter: EmailMessage) -> str:
    body = letter.get_body(("html",))
    assert body
    return str(body.get_content())


def subjects(visitor: Visitor) -> list[str]:
    return [str(letter["Subject"]) for letter in visitor.letters()]


def change_password(visitor: Visitor) -> None:
    visitor.submit("/change", {"password": GOOD_PASSWORD, "new_password": NEW_PASSWORD})


def test_a_notification_contains_what_when_where_and_what_to_do(
    visitor: Visitor, app: Flask, person: str
):
    visitor.client.environ_base["HTTP_USER_AGENT"] = LINUX
    visitor.sign_in(person)
    change_password(visitor)
    (letter,) = visitor.letters()
    assert letter["To"] == person
    text = text_of(letter)
    assert "The password of your account at Acme was changed." in text
    now = utcnow()
    assert re.search(rf"When: {now:%A, %-d %B %Y}, at \d\d:\d\d UTC\n", text)
    assert "Device: Firefox on Linux\n" in text
    assert "Network address: 127.0.0.1\n" in text
    assert "If not, set a new password immediately" in text
    assert text.rstrip().endswith("https://localhost/reset")
    assert "\n\n\n" not in text


def test_a_notice_has_lines_in_html_too(visitor: Visitor, person: str):
    visitor.sign_in(person)
    change_password(visitor)
    html = page_of(visitor.letters()[0])
    assert "pre-line" in html
    assert 'href="https://localhost/reset"' in html


def test_the_first_sign_in_is_not_reported_and_a_known_device_neither(
    visitor: Visitor, person: str
):
    for _ in range(2):
        visitor.sign_in(person)
        visitor.client.delete_cookie("__Host-session")
    assert visitor.letters() == []


def test_a_sign_in_with_a_new_device_is_reported(
    visitor: Visitor, other_visitor: Visitor, person: str
):
    visitor.sign_in(person)
    other_visitor.sign_in(person)
    assert subjects(visitor) == ["New sign-in to Acme"]


def test_a_new_address_is_reported_to_the_old_one_and_the_new(
    visitor: Visitor, person: str
):
    visitor.sign_in(person)
    visitor.submit("/change-email", {"email": "zoe@example.net"})
    visitor.submit(visitor.link_in_last_letter(), {})
    sent = [
        letter
        for letter in visitor.letters()
        if letter["Subject"] == "Your address for Acme was changed"
    ]
    assert {letter["To"] for letter in sent} == {person, "zoe@example.net"}
    # A link to set a new password would go to the new address.
    assert all("https://" not in text_of(letter) for letter in sent)
    assert all("help@example.com" in text_of(letter) for letter in sent)


def test_a_password_reset_is_reported(visitor: Visitor, person: str):
    visitor.submit("/reset", {"email": person})
    visitor.submit(visitor.link_in_last_letter(), {"password": NEW_PASSWORD})
    assert subjects(visitor)[-1] == "Your password for Acme was set"


def test_a_wrong_second_factor_is_reported_once_an_hour(visitor: Visitor, app: Flask):
    email = add_person(app, "zoe@example.org", totp=True)
    wrong = {"code": "000000"}

    def guess() -> int:
        visitor.submit("/login", {"email": email, "password": GOOD_PASSWORD})
        visitor.submit("/login/code", wrong)
        return len(visitor.letters())

    assert [guess(), guess(), guess()] == [1, 1, 1]
    assert "authenticator app" in text_of(visitor.letters()[0])
    with app.app_context():
        with trail.unlocked():
            db.session.execute(
                update(SecurityEvent).values(at=utcnow() - timedelta(minutes=61))
            )
        db.session.commit()
    assert guess() == 2


def test_what_an_administrator_does_is_reported_without_their_network(
    visitor: Visitor, app: Flask, person: str
):
    admin = add_person(app, "ada@example.org", "administrator")
    with app.test_request_context(environ_base={"REMOTE_ADDR": "192.0.2.77"}):
        events.record(
            "authn_login_lock", find_user(app, person), actor=find_user(app, admin)
        )
        db.session.commit()
    (letter,) = visitor.letters()
    assert letter["To"] == person
    assert "By: an administrator\n" in text_of(letter)
    assert "192.0.2.77" not in text_of(letter)
    assert "If not, contact help@example.com." in text_of(letter)


def test_what_the_operator_does_on_the_machine_is_reported(
    visitor: Visitor, app: Flask, person: str
):
    with app.app_context():
        events.record("authn_mfa_removed", find_user(app, person), factor="totp")
        db.session.commit()
    (letter,) = visitor.letters()
    assert "By: the operator of this service\n" in text_of(letter)
    assert "authenticator app" in text_of(letter)


def test_what_is_rolled_back_is_not_reported(visitor: Visitor, app: Flask, person: str):
    with app.app_context():
        events.record("authn_login_lock", find_user(app, person))
        db.session.rollback()
    assert visitor.letters() == []


def test_an_unknown_account_is_sent_nothing(visitor: Visitor, app: Flask):
    with app.app_context():
        events.record("authn_login_fail_max")
        db.session.commit()
    assert visitor.letters() == []


@pytest.mark.parametrize("event", sorted(NOTICES))
@pytest.mark.parametrize("where", ["page", "shell"])
def test_each_notice_is_plain_text_and_a_safe_page(
    visitor: Visitor, app: Flask, person: str, event: str, where: str, monkeypatch
):
    name = "<b>{service}</b> & {admin.password}"
    settings = replace(app.extensions["bulwark"], name=name)
    monkeypatch.setitem(app.extensions, "bulwark", settings)
    hostile = "<script>alert(1)</script> https://evil.example"
    page = app.test_request_context(
        headers={"User-Agent": hostile}, environ_base={"REMOTE_ADDR": "192.0.2.7"}
    )
    with page if where == "page" else app.app_context():
        someone = find_user(app, person)
        new = events.record(event, someone, factor="totp", new_device=True)
        if NOTICES[event].apart:
            own = {"link": "https://localhost/reset", "new_address": "zoe@example.net"}
            notifications.send(new, person, **own)
        db.session.commit()
    (letter,) = visitor.letters()
    text, html = text_of(letter), page_of(letter)
    assert name in text
    assert name not in html
    assert "<script" not in html
    assert "evil.example" not in text + html
    assert "{factor}" not in text
    assert "None" not in text
    assert set(re.findall(r"https?://\S+", text)) <= {
        "https://localhost/reset",
        "https://localhost/account/tokens",
    }


def test_each_notice_is_of_an_event_that_exists():
    assert NOTICES.keys() <= CATALOGUE.keys()


LINK = {"link": "https://localhost/x"}
SOMEBODY = {"user": {"email": "zoe@example.org", "active": True}}
# The context of each email.
MAILS: dict[str, dict[str, Any]] = {
    "change_email_instructions": LINK | {"within": "1 hour"},
    "change_email_taken": {},
    "forced_reset": LINK | {"hours": 1, "later": "https://localhost/reset"},
    "invitation": LINK | SOMEBODY | {"hours": 1, "later": "https://localhost/reset"},
    "reset_instructions": SOMEBODY
    | {"reset_link": "https://localhost/x", "within": "1 hour"},
    "two_factor_instructions": {"token": "123456", "within": "5 minutes"},
    "welcome": LINK | {"hours": 24},
    "welcome_existing": {},
}


def test_every_email_is_tested():
    folder = Path(bulwark.__file__).parent / "templates" / "security" / "email"
    assert {path.stem for path in folder.iterdir()} == MAILS.keys()


@pytest.mark.parametrize("name", sorted(MAILS))
def test_each_email_is_complete_as_text_and_as_a_page(
    visitor: Visitor, app: Flask, name: str, monkeypatch: pytest.MonkeyPatch
):
    strict = app.jinja_env.overlay(undefined=StrictUndefined)
    monkeypatch.setattr(app, "jinja_env", strict)
    with app.test_request_context():
        text = render_template(f"security/email/{name}.txt", **MAILS[name])
        mail.send("Hello", "zoe@example.org", text)
        db.session.commit()
    (letter,) = visitor.letters()
    for part in (text_of(letter), page_of(letter)):
        assert "Acme" in part
        for value in MAILS[name].values():
            assert value == SOMEBODY["user"] or str(value) in part
    assert "\n\n\n" not in text_of(letter)
