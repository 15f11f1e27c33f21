"""Events of signing in and out: each attempt is recorded once."""

from flask import Flask

from bulwark.database import db
from tests.bulwark.audit.support import WRONG, Watch, give_password, post
from tests.conftest import Visitor


def test_signing_in_and_out(visitor: Visitor, watch: Watch, person: str):
    visitor.sign_in(person)
    assert watch.new() == [
        ("authn_login_success", "zoe", "zoe", {"factor": "password"})
    ]
    post(visitor, "/logout")
    assert watch.new() == [("authn_logout", "zoe", "zoe", {})]


def test_signing_in_with_another_device(
    visitor: Visitor, other_visitor: Visitor, watch: Watch, zoe: str
):
    other_visitor.sign_in(zoe)
    details = {"factor": "password", "new_device": True}
    assert watch.new() == [("authn_login_success", "zoe", "zoe", details)]


def test_a_wrong_password_and_then_the_right_one(
    visitor: Visitor, watch: Watch, person: str
):
    give_password(visitor, person, WRONG)
    failed = ("authn_login_fail", "zoe", None, {"factor": "password"})
    assert watch.new() == [failed]
    visitor.sign_in(person)
    assert watch.new() == [
        ("authn_login_successafterfail", "zoe", "zoe", {"factor": "password"})
    ]


def test_a_wrong_address(visitor: Visitor, watch: Watch):
    give_password(visitor, "alien@example.org", WRONG)
    assert watch.new() == [("authn_login_fail", None, None, {"factor": "password"})]


def test_the_right_password_of_a_locked_account(
    visitor: Visitor, app: Flask, watch: Watch, person: str
):
    with app.app_context():
        found = app.extensions["security"].datastore.find_user(email=person)
        found.active = False
        db.session.commit()
    give_password(visitor, person)
    assert watch.new() == [("authn_login_fail", "zoe", None, {"factor": "password"})]


def test_guessing_a_password_until_it_is_refused(
    visitor: Visitor, watch: Watch, person: str
):
    for _ in range(12):
        give_password(visitor, person, WRONG)
    failed = ("authn_login_fail", "zoe", None, {"factor": "password"})
    limit = ("authn_login_fail_max", "zoe", None, {"factor": "password", "told": True})
    assert watch.new() == [failed] * 10 + [limit]
