"""Flask-Principal's identity: there when something asks, and only then."""

from typing import Any

import pytest
from flask import Flask, g
from flask_login import login_user
from flask_principal import Permission, RoleNeed, identity_loaded
from flask_security import roles_required
from werkzeug.exceptions import Forbidden

from bulwark.web.access import ADMINISTRATOR
from tests.conftest import Visitor, add_person
from tests.support import find_user


@pytest.fixture
def made(app: Flask) -> list[Any]:
    """The identities that were made."""
    found: list[Any] = []

    def remember(_: object, identity: Any) -> None:
        found.append(identity)

    identity_loaded.connect(remember, app)
    app.extensions["test_principal"] = remember  # blinker holds it weakly
    return found


def test_a_page_makes_no_identity(visitor: Visitor, person: str, made: list[Any]):
    visitor.sign_in(person)
    made.clear()
    assert visitor.get("/account").status_code == 200
    assert made == []


def test_roles_required_knows_the_roles_of_the_user(app: Flask):
    view = roles_required(ADMINISTRATOR)(lambda: "welcome")
    add_person(app, "ada@example.org", ADMINISTRATOR)
    add_person(app, "bo@example.org")
    with app.test_request_context("/"):
        g._login_user = find_user(app, "ada@example.org")
        assert view() == "welcome"
    with app.test_request_context("/"):
        g._login_user = find_user(app, "bo@example.org")
        with pytest.raises(Forbidden):
            view()


def test_a_permission_is_refused_without_a_user(app: Flask):
    with app.test_request_context("/"):
        assert not Permission(RoleNeed(ADMINISTRATOR)).can()


def test_the_identity_follows_a_sign_in(app: Flask):
    add_person(app, "ada@example.org", ADMINISTRATOR)
    with app.test_request_context("/"):
        assert not Permission(RoleNeed(ADMINISTRATOR)).can()
        login_user(find_user(app, "ada@example.org"))
        del g.identity
        assert Permission(RoleNeed(ADMINISTRATOR)).can()
