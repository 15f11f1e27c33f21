"""The fields of the team's own: entered, shown, changed and escaped.

Without a form in `sign_up`, there is no profile.
"""

from typing import Any

import pytest
from flask import Flask
from sqlalchemy import String, select
from werkzeug.datastructures import MultiDict

from bulwark.audit.events import SecurityEvent
from bulwark.database import db
from bulwark.identity import profile
from tests.conftest import GOOD_PASSWORD, Visitor, add_person
from tests.sign_up import choices_of, explain, own_fields, required
from tests.support import JSON, find_user, user_path

NEW = "new@example.org"
PAYLOAD = "<script>alert(1)</script>"


@pytest.fixture
def fields(app: Flask) -> dict[str, str]:
    """Values of your fields."""
    values = own_fields(app, "zoe@example.org")
    if not values:
        pytest.skip("sign_up in app/__init__.py has no form")
    return values


@pytest.fixture
def text_field(app: Flask, fields: dict[str, str]) -> str:
    """The name of a field for any text."""
    kind = choices_of(app).form
    assert kind
    with app.test_request_context():
        for name, column in profile.columns_of(kind):
            length = getattr(column.type, "length", None) or len(PAYLOAD)
            values = MultiDict(fields | {name: "Grace Hopper"})
            form = kind(formdata=values, meta={"csrf": False})
            is_long = isinstance(column.type, String) and length >= len(PAYLOAD)
            is_text = is_long and form[name].type == "StringField"
            if is_text and form[name].validate(form):
                return name
    pytest.skip("no field takes any text")


def values_of(app: Flask, email: str) -> dict[str, Any]:
    with app.app_context():
        return profile.to_dict(choices_of(app).form, find_user(app, email))


def test_without_a_form_there_is_no_profile(visitor: Visitor, app: Flask, person: str):
    visitor.sign_in(person)
    status = 200 if choices_of(app).form else 404
    assert visitor.get("/account/profile").status_code == status
    linked = 'href="/account/profile"' in visitor.get("/account").text
    assert linked is (status == 200)


@pytest.mark.usefixtures("public_sign_up")
def test_a_new_user_enters_the_fields(
    visitor: Visitor, app: Flask, fields: dict[str, str]
):
    """A form without a required field is refused, and no account is created."""
    visitor.submit("/register", {"email": NEW})
    link = visitor.link_in_last_letter()
    needed = required(app, NEW)
    page = visitor.submit(link, {"password": GOOD_PASSWORD, **needed})
    assert page.location == "/login", explain({"form": page.text})
    stored = values_of(app, NEW)
    add_person(app, "same@example.org")
    for name, value in values_of(app, "same@example.org").items():
        assert (stored[name] is None) is (value is None), name


def test_an_invited_user_enters_the_fields(
    visitor: Visitor, app: Flask, fields: dict[str, str]
):
    output = app.test_cli_runner().invoke(args=["accounts", "invite", NEW]).output
    visitor.create_account(output.split("https://localhost")[-1].strip())
    add_person(app, "same@example.org")
    stored, same = values_of(app, NEW), values_of(app, "same@example.org")
    assert {n: v is None for n, v in stored.items()} == {
        n: v is None for n, v in same.items()
    }
    assert set(stored.values()) != {""}


def test_users_change_their_profile_and_that_is_recorded(
    visitor: Visitor, app: Flask, person: str, fields: dict[str, str], text_field: str
):
    visitor.sign_in(person)
    changed = fields | {text_field: "Grace Hopper"}
    answer = visitor.submit("/account/profile", changed)
    assert answer.location == "/account"
    assert "Grace Hopper" in visitor.get("/account").text
    assert values_of(app, person)[text_field] == "Grace Hopper"
    assert visitor.submit("/account/profile", changed).location == "/account"
    with app.app_context():
        query = select(SecurityEvent).where(SecurityEvent.name == "user_updated")
        (event,) = db.session.scalars(query)
        assert event.details == {"fields": [text_field]}


def test_what_users_enter_is_text_on_every_page(
    visitor: Visitor, ada: Visitor, app: Flask, text_field: str
):
    add_person(app, "zoe@example.org")
    with app.app_context():
        setattr(find_user(app, "zoe@example.org"), text_field, PAYLOAD)
        db.session.commit()
    zoe = Visitor(app, visitor.mailbox)
    zoe.sign_in("zoe@example.org")
    pages = [zoe.get("/account"), zoe.get("/account/profile")]
    pages.append(ada.get(user_path(app, "zoe@example.org")))
    for page in pages:
        assert "alert(1)" in page.text
        assert PAYLOAD not in page.text


def test_no_other_column_can_be_changed(
    visitor: Visitor, app: Flask, person: str, fields: dict[str, str]
):
    visitor.sign_in(person)
    with app.app_context():
        user = find_user(app, person)
        before = user.email, user.password, user.active, user.confirmed_at
    attack = {
        "email": "evil@example.org",
        "password": "x",
        "active": "",
        "roles": "1",
        "confirmed_at": "",
        "accepted_terms_version": "x",
        "id": "99",
    }
    visitor.submit("/account/profile", fields | attack)
    visitor.send("/account/profile", fields | attack)
    with app.app_context():
        user = find_user(app, person)
        assert (user.email, user.password, user.active, user.confirmed_at) == before
        assert user.roles == []
        assert user.accepted_terms_version != "x"


def test_a_text_that_is_longer_than_its_column_is_refused(
    visitor: Visitor, app: Flask, person: str, fields: dict[str, str], text_field: str
):
    form = choices_of(app).form
    assert form
    with app.app_context():
        length = dict(profile.columns_of(form))[text_field].type.length  # type: ignore[attr-defined]
    if not length or length >= 1024:
        pytest.skip("the column has no length, or one that no request has")
    visitor.sign_in(person)
    before = values_of(app, person)
    long = fields | {text_field: "é" * (length + 1)}
    assert visitor.submit("/account/profile", long).status_code == 200
    assert visitor.send("/account/profile", long).status_code == 400
    assert values_of(app, person) == before


def test_scripts_read_and_change_the_profile(
    visitor: Visitor, app: Flask, person: str, fields: dict[str, str], text_field: str
):
    visitor.sign_in(person)
    answer = visitor.send("/account/profile", fields | {text_field: "Grace Hopper"})
    assert answer.get_json()[text_field] == "Grace Hopper"
    assert visitor.get("/account/profile", headers=JSON).get_json() == answer.get_json()
    account = visitor.get("/account", headers=JSON).get_json()
    assert account["profile"][text_field] == "Grace Hopper"
