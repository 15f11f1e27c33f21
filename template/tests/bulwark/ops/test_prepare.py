"""`flask accounts`: what an operator does at the command line."""

from typing import Any

import pytest
from click.testing import Result
from flask import Flask
from sqlalchemy import select

from bulwark.audit.events import SecurityEvent
from bulwark.database import db
from bulwark.identity.models import BaseUser
from tests.conftest import GOOD_PASSWORD, Visitor, add_person
from tests.sign_up import choices_of

WHY = ("--reason", "They called, and showed a passport")


def run(app: Flask, *arguments: str) -> Result:
    return app.test_cli_runner().invoke(args=["accounts", *arguments])


def user(app: Flask, email: str) -> BaseUser:
    with app.app_context():
        found: BaseUser = app.extensions["security"].datastore.find_user(email=email)
        assert isinstance(found.roles, list)
        assert isinstance(found.webauthn, list)
        return found


def recorded(app: Flask) -> list[SecurityEvent]:
    with app.app_context():
        ignored = ("authn_login_success", "authn_mfa_success")
        query = select(SecurityEvent).where(SecurityEvent.name.not_in(ignored))
        return list(db.session.scalars(query.order_by(SecurityEvent.id)))


@pytest.mark.parametrize(
    ("command", "name", "details"),
    [
        (
            ("grant", "zoe@example.org", "administrator"),
            "authz_change",
            {"given": True},
        ),
        (("lock", "zoe@example.org"), "authn_login_lock", {}),
        (("sign-out", "zoe@example.org"), "session_revoked", {}),
        (("reset-factors", "zoe@example.org"), "authn_mfa_removed", {"factor": "all"}),
        (("invite", "new@example.org"), "user_created", {}),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_each_command_records_one_event_of_the_operator(
    app: Flask, command: tuple[str, ...], name: str, details: dict[str, Any]
):
    add_person(app, "zoe@example.org", totp=True)
    answer = run(app, *command, *WHY)
    assert answer.exit_code == 0, answer.output
    (event,) = recorded(app)
    assert (event.name, event.actor_id, event.reason) == (name, None, WHY[1])
    assert event.details.items() >= {"by": "operator", **details}.items()


def test_an_operator_gives_a_role_and_takes_it(app: Flask, person: str):
    add_person(app, "ada@example.org", "administrator")
    given = run(app, "grant", person, "administrator")
    assert given.stdout == f"{person} has these roles: administrator.\n"
    assert [role.name for role in user(app, person).roles] == ["administrator"]
    assert "no longer" in run(app, "take", person, "administrator").output
    assert user(app, person).roles == []


def test_an_operator_cannot_take_the_last_administrator_away(app: Flask):
    email = add_person(app, "ada@example.org", "administrator")
    for command in (("take", email, "administrator"), ("lock", email, *WHY)):
        answer = run(app, *command)
        assert answer.exit_code == 1
        assert f"{email} is the last administrator" in answer.output
    assert recorded(app) == []


def test_an_operator_locks_and_unlocks(app: Flask, visitor: Visitor, person: str):
    visitor.sign_in(person)
    assert "locked and signed out" in run(app, "lock", person, *WHY).output
    assert not visitor.is_signed_in()
    assert "can sign in again" in run(app, "unlock", person).output
    visitor.sign_in(person)
    assert visitor.is_signed_in()


def test_an_operator_ends_all_sessions(app: Flask, visitor: Visitor, person: str):
    visitor.sign_in(person)
    assert "signed out everywhere" in run(app, "sign-out", person).output
    assert not visitor.is_signed_in()


def test_an_operator_removes_all_factors_of_whoever_lost_them(
    app: Flask, visitor: Visitor
):
    email = add_person(app, "zoe@example.org", totp=True)
    visitor.sign_in(email)
    done = run(app, "reset-factors", email, *WHY)
    assert "no longer has a second factor" in done.output
    assert not visitor.is_signed_in()
    assert not user(app, email).has_second_factor
    visitor.submit("/login", {"email": email, "password": GOOD_PASSWORD})
    assert visitor.is_signed_in()
    again = run(app, "reset-factors", email, *WHY)
    assert "They have no second factor." in again.output


def test_an_invitation_is_printed_and_works_once(
    app: Flask, visitor: Visitor, other_visitor: Visitor
):
    output = run(app, "invite", "New@Example.org", "--role", "administrator").output
    link = output.splitlines()[-1].removeprefix("https://localhost")
    subjects = [str(letter["Subject"]) for letter in visitor.letters()]
    assert not any(subject.startswith("Your account") for subject in subjects)
    visitor.create_account(link)
    visitor.sign_in("new@example.org")
    assert visitor.get("/account").location == "/account/second-factor"
    assert other_visitor.get(link).location == "/reset"
    taken = run(app, "invite", "new@example.org")
    assert "new@example.org already has an account." in taken.output


def test_accounts_are_listed_with_what_matters(app: Flask, person: str):
    add_person(app, "ada@example.org", "administrator")
    run(app, "invite", "new@example.org")
    run(app, "lock", person, *WHY)
    role = choices_of(app).role
    assert run(app, "list").output.splitlines() == [
        "ada@example.org  second factor  administrator",
        "new@example.org  no password yet  no second factor"
        + (f"  {role}" if role else ""),
        f"{person}  locked  no second factor",
    ]
    administrators = run(app, "list", "--role", "administrator").output
    assert administrators == "ada@example.org  second factor  administrator\n"
    locked = run(app, "list", "--locked").output
    assert locked == f"{person}  locked  no second factor\n"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("lock", "nobody@example.org", *WHY), "no account has the email address"),
        (("lock", "zoe@example.org"), "Missing option '--reason'"),
        (("reset-factors", "zoe@example.org"), "Missing option '--reason'"),
        (("unlock", "zoe@example.org"), "This account is not locked."),
        (("grant", "zoe@example.org", "admin"), "the roles are administrator"),
        (("take", "zoe@example.org", "administrator"), "They do not have the role"),
        (("invite", "zoe"), "Enter an email address such as name@example.com."),
        (("invite", "a@example.org", "--role", "x"), "there is no role 'x'"),
        (("list", "--role", "admin"), "there is no role 'admin'"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_what_an_operator_gets_wrong_is_explained_and_changes_nothing(
    app: Flask, person: str, command: tuple[str, ...], message: str
):
    answer = run(app, *command)
    assert answer.exit_code != 0
    assert message in answer.output
    assert recorded(app) == []
    with app.app_context():
        found = app.extensions["security"].datastore.find_user(email="a@example.org")
        assert found is None
