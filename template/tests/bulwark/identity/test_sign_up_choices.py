"""Sign-up as the team chooses it: who gets an account, the terms, the role.

Each test sets the choice that it is about, whatever `sign_up` is in `app/__init__.py`.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import delete, func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from wtforms import StringField

from app.models import User
from bulwark import SignUp, Terms
from bulwark.audit.events import SecurityEvent
from bulwark.database import db, utcnow
from bulwark.identity import new_accounts, sign_up_options
from bulwark.identity.models import Role, users_roles
from bulwark.identity.new_accounts import UnsafeRoleError
from bulwark.identity.profile import ProfileForm
from bulwark.identity.sign_up_options import SignUpError
from bulwark.web import problems
from tests.conftest import GOOD_PASSWORD, Visitor, add_person
from tests.sign_up import choices_of, own_fields
from tests.support import JSON, bearer, find_user, make_token, routes_of_users

NEW = "new@example.org"
PAGE = "https://example.org/terms"
OLD, CURRENT = Terms(version="2025-01", page=PAGE), Terms(version="2026-11", page=PAGE)
WHY = {"reason": "a new colleague"}
Choose = Callable[..., SignUp]


@pytest.fixture
def choose(app: Flask, monkeypatch: pytest.MonkeyPatch) -> Choose:
    """Change choices of the service for this test."""

    def change(**choices: Any) -> SignUp:
        chosen = replace(choices_of(app), **choices)
        monkeypatch.setitem(app.extensions, "sign_up", chosen)
        return chosen

    return change


@pytest.fixture
def role(app: Flask, choose: Choose) -> Any:
    """The name of a role that each new account has."""
    with app.app_context():
        db.session.add(Role(name="test customer", permissions=[]))
        db.session.commit()
    choose(role="test customer")
    yield "test customer"
    with app.app_context():
        db.session.execute(delete(users_roles))
        db.session.execute(delete(Role).where(Role.name == "test customer"))
        db.session.commit()


def users_in(app: Flask) -> int:
    with app.app_context():
        return db.session.scalar(select(func.count()).select_from(User)) or 0


def invite(app: Flask, *options: str) -> str:
    """Invite somebody at the command line; return the output, whose end is the link."""
    command = ["accounts", "invite", NEW, *options]
    output: str = app.test_cli_runner().invoke(args=command).output
    return output.strip()


def link_in(output: str) -> str:
    return output.splitlines()[-1].removeprefix("https://localhost")


def details(app: Flask, name: str) -> list[dict[str, Any]]:
    with app.app_context():
        query = select(SecurityEvent.details).where(SecurityEvent.name == name)
        return list(db.session.scalars(query))


# --- Who may sign up ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "opened", "sent", "links"),
    [("public", 200, 200, 2), ("invitation", 200, 404, 1), ("closed", 404, 404, 0)],
)
def test_the_sign_up_page_follows_the_mode(
    mode: str, opened: int, sent: int, links: int, visitor: Visitor, choose: Choose
):
    choose(mode=mode)
    assert visitor.get("/login").text.count('href="/register"') == links
    page = visitor.get("/register")
    assert page.status_code == opened
    assert ("Accounts are by invitation" in page.text) is (mode == "invitation")
    headers = {
        "X-CSRFToken": visitor.csrf_token(),
        "Referer": "https://localhost/login",
    }
    for body in ({"data": {"email": NEW}}, {"json": {"email": NEW}}):
        answer = visitor.client.post("/register", headers=headers, **body)
        assert answer.status_code == sent
    assert len(visitor.letters()) == (2 if mode == "public" else 0)


@pytest.mark.parametrize("mode", ["invitation", "closed"])
def test_a_link_sent_before_sign_up_ended_makes_no_account(
    mode: str, visitor: Visitor, app: Flask, choose: Choose
):
    choose(mode="public")
    visitor.submit("/register", {"email": NEW})
    link, token = visitor.link_in_last_letter(), visitor.csrf_token()
    choose(mode=mode)
    assert "csrf_token" not in visitor.get(link).text
    fields = {"csrf_token": token, "password": GOOD_PASSWORD, **own_fields(app, NEW)}
    headers = {"Referer": "https://localhost/login"}
    answer = visitor.client.post(link, data=fields, headers=headers)
    assert answer.status_code == 404
    assert users_in(app) == 0


@pytest.mark.parametrize("mode", ["invitation", "closed"])
def test_no_mode_reveals_who_has_an_account(
    mode: str, visitor: Visitor, person: str, choose: Choose
):
    choose(mode=mode)
    token = visitor.csrf_token()
    headers = {"Referer": "https://localhost/login", **JSON}
    answers = [
        visitor.client.post(
            "/register", data={"csrf_token": token, "email": email}, headers=headers
        )
        for email in (person, NEW)
    ]
    known, unknown = (
        {k: v for k, v in (answer.get_json() or {}).items() if k != "request_id"}
        for answer in answers
    )
    assert (known, answers[0].status_code) == (unknown, answers[1].status_code)
    assert visitor.letters() == []


@pytest.mark.parametrize("mode", ["public", "invitation", "closed"])
def test_an_invited_user_gets_an_account_in_every_mode(
    mode: str, visitor: Visitor, other_visitor: Visitor, app: Flask, choose: Choose
):
    choose(mode=mode)
    link = link_in(invite(app))
    assert visitor.create_account(link).location == "/login"
    assert other_visitor.get(link).location == "/reset"
    visitor.sign_in(NEW)
    assert visitor.is_signed_in()


# --- Invitations ----------------------------------------------------------------------


@pytest.mark.parametrize("late", [False, True], ids=["in time", "late"])
def test_an_invitation_works_as_long_as_the_team_chose(
    late: bool,
    visitor: Visitor,
    ada: Visitor,
    app: Flask,
    choose: Choose,
    monkeypatch: pytest.MonkeyPatch,
):
    choose(invitation_hours=72)
    ada.submit("/admin/users/invite", {"email": NEW, **WHY})
    body = ada.letters()[-1].get_body(("plain",))
    assert body
    assert "within 72 h" in body.get_content()
    assert "within 72 h" in invite(app)
    link = ada.link_in_last_letter()
    moment = (
        time.time() + timedelta(hours=72, minutes=1 if late else -1).total_seconds()
    )
    monkeypatch.setattr("itsdangerous.timed.time.time", lambda: moment)
    fresh = Visitor(app, ada.mailbox)
    assert (fresh.get(link).status_code == 200) is not late
    if late:
        assert fresh.get(link).location == "/reset"


def test_other_links_for_a_password_keep_their_hour(
    visitor: Visitor,
    app: Flask,
    person: str,
    choose: Choose,
    monkeypatch: pytest.MonkeyPatch,
):
    choose(invitation_hours=72)
    visitor.submit("/reset", {"email": person})
    link = visitor.link_in_last_letter()
    moment = time.time() + timedelta(minutes=61).total_seconds()
    monkeypatch.setattr("itsdangerous.timed.time.time", lambda: moment)
    assert visitor.get(link).location == "/reset"


def test_an_invitation_works_once_also_through_a_reset(
    visitor: Visitor, app: Flask, choose: Choose
):
    """A reset link of an invited user opens the same form, with the terms."""
    choose(terms=CURRENT)
    invited = link_in(invite(app))
    visitor.submit("/reset", {"email": NEW})
    reset = visitor.link_in_last_letter()
    refused = visitor.submit(reset, {"password": GOOD_PASSWORD, **own_fields(app, NEW)})
    assert "accept them to continue" in refused.text
    with app.app_context():
        assert find_user(app, NEW).password is None
    assert visitor.create_account(reset).location == "/login"
    for link in (invited, reset):
        assert visitor.get(link).location == "/reset"


def test_only_the_owner_of_the_link_learns_the_address(visitor: Visitor, app: Flask):
    link = link_in(invite(app))
    assert NEW in visitor.get(link).text
    assert NEW not in visitor.get(f"{link}x", follow_redirects=True).text


# --- Terms ----------------------------------------------------------------------------


def test_nobody_gets_an_account_without_accepting_the_terms(
    visitor: Visitor, app: Flask, choose: Choose
):
    choose(mode="public", terms=CURRENT)
    visitor.submit("/register", {"email": NEW})
    link = visitor.link_in_last_letter()
    assert f'href="{PAGE}"' in visitor.get(link).text
    for accepted in ({}, {"accept_terms": "y"}, {"accept_terms": OLD.version}):
        data = {"password": GOOD_PASSWORD, **own_fields(app, NEW), **accepted}
        assert "accept them to continue" in visitor.submit(link, data).text
    assert users_in(app) == 0
    visitor.create_account(link)
    with app.app_context():
        user = find_user(app, NEW)
        assert user.accepted_terms_version == CURRENT.version
        assert utcnow() - user.accepted_terms_at < timedelta(minutes=1)
    assert details(app, "user_terms_accepted") == [{"terms": CURRENT.version}]


def test_after_a_change_of_the_terms_users_accept_them_before_they_go_on(
    visitor: Visitor, app: Flask, person: str, choose: Choose
):
    choose(terms=OLD)
    with app.app_context():
        find_user(app, person).accepted_terms_version = OLD.version
        db.session.commit()
    visitor.sign_in(person)
    assert visitor.is_signed_in()
    choose(terms=CURRENT)
    asked = visitor.get("/account/activity?x=1").location
    assert asked == "/account/terms?next=/account/activity?x%3D1"
    assert "Terms of use" in visitor.get(asked).text
    refused = visitor.submit(asked, {"next": "/account/activity"})
    assert "accept them to continue" in refused.text
    assert visitor.get("/account").location.startswith("/account/terms")
    accepted = {"accept_terms": CURRENT.version, "next": "/account/activity"}
    assert visitor.submit(asked, accepted).location == "/account/activity"
    assert visitor.is_signed_in()
    assert f"version {CURRENT.version}" in visitor.get("/account/terms").text
    assert details(app, "user_terms_accepted") == [{"terms": CURRENT.version}]


def test_until_then_no_page_of_a_user_opens(
    visitor: Visitor, app: Flask, person: str, choose: Choose
):
    visitor.sign_in(person)
    choose(terms=Terms(version="unseen", page=PAGE))
    headers = {
        "X-CSRFToken": visitor.csrf_token("/reset"),
        "Referer": "https://localhost/reset",
    }
    also_open = ("/account/terms", "/account/second-factor", "/logout", "/verify")
    setup = ("/account/authenticator", "/account/passkeys", "/account/recovery-codes")
    asked = routes_of_users(app)
    assert len(asked) > 20
    for method, path in asked:
        if path.startswith((*also_open, *setup)) and not path.endswith("remove"):
            continue
        page = visitor.client.open(path, method=method, headers=headers)
        if page.mimetype != problems.MIMETYPE:  # of an API
            assert str(page.location).startswith("/account/terms?"), (method, path)
        script = visitor.client.open(path, method=method, headers={**headers, **JSON})
        assert script.status_code == 403, (method, path)
        assert "Accept the terms" in script.text


def test_a_user_who_does_not_accept_may_sign_out(
    visitor: Visitor, person: str, choose: Choose
):
    visitor.sign_in(person)
    choose(terms=Terms(version="unseen", page=PAGE))
    token = visitor.csrf_token("/account/terms")
    headers = {"Referer": "https://localhost/account/terms"}
    visitor.client.post("/logout", data={"csrf_token": token}, headers=headers)
    assert visitor.get("/account").location.startswith("/login")


def test_a_token_of_who_has_not_accepted_is_told_where(
    visitor: Visitor, app: Flask, choose: Choose
):
    email = add_person(app, "ada@example.org", "administrator")
    token = make_token(app, email, "users:read")
    assert visitor.get("/admin/users", headers=bearer(token)).status_code == 200
    choose(terms=Terms(version="unseen", page=PAGE))
    refused = visitor.get("/admin/users", headers=bearer(token))
    assert refused.status_code == 403
    assert "https://localhost/account/terms" in refused.get_json()["error"]


def test_accepting_leads_to_no_other_site(
    visitor: Visitor, person: str, choose: Choose
):
    visitor.sign_in(person)
    choose(terms=CURRENT)
    data = {"accept_terms": CURRENT.version, "next": "https://evil.example"}
    answer = visitor.submit("/account/terms", data)
    assert "evil" not in (answer.location or "")
    answer = visitor.submit("/account/terms?next=//evil.example", {**data, "next": ""})
    assert "evil" not in (answer.location or "")


def test_without_terms_nobody_is_asked(visitor: Visitor, person: str, choose: Choose):
    choose(terms=None)
    visitor.sign_in(person)
    assert visitor.is_signed_in()
    assert visitor.get("/account/terms").status_code == 404


# --- The role of a new account --------------------------------------------------------


def test_each_new_account_has_the_role(
    visitor: Visitor, app: Flask, role: str, choose: Choose
):
    choose(mode="public")
    visitor.submit("/register", {"email": "first@example.org"})
    visitor.create_account(visitor.link_in_last_letter(), email="first@example.org")
    invite(app)
    with app.app_context():
        for email in ("first@example.org", NEW):
            assert [r.name for r in find_user(app, email).roles] == [role]
    created = details(app, "user_created")
    assert [detail["role"] for detail in created] == [role, role]


def test_the_role_never_gets_permissions_of_administrators(
    ada: Visitor, app: Flask, role: str
):
    with app.app_context():
        number = db.session.scalars(select(Role.id).where(Role.name == role)).one()
    change = {"permissions": "users:write", **WHY}
    answer = ada.submit(f"/admin/roles/{number}", change)
    assert "Each new account gets this role" in answer.text
    with app.app_context():
        db.session.get_one(Role, number).permissions = ["users:write"]
        db.session.commit()
        with pytest.raises(UnsafeRoleError, match="grants users:write"):
            new_accounts.create(NEW)
        db.session.rollback()
    assert users_in(app) == 1


# --- What can't work ------------------------------------------------------------------


class OwnBase(DeclarativeBase):
    """Models that are not those of the service."""


class Member(OwnBase):
    """A user with columns that a form may have."""

    __tablename__ = "members"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    nick: Mapped[str] = mapped_column(unique=True)
    born: Mapped[date]
    plan: Mapped[str] = mapped_column(unique=True, default="free")


def form_with(name: str) -> type[ProfileForm]:
    return type(ProfileForm)("Fields", (ProfileForm,), {name: StringField()})  # type: ignore[misc, no-any-return]


def refusal_of(app: Flask, **choices: Any) -> str:
    """Return why the service does not start; "" if it does."""
    roles = {"customer": ["notes:write"], "manager": ["users:write"]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app, "context_processor", lambda added: added)
        patch.setitem(app.extensions, "sign_up", None)
        try:
            sign_up_options.init_app(app, SignUp(**choices), Member, roles)  # type: ignore[arg-type]
        except SignUpError as error:
            return str(error)
    return ""


@pytest.mark.parametrize(
    ("choices", "reason"),
    [
        ({"mode": "open"}, "the mode 'open' is not one of 'public', 'invitation'"),
        ({"invitation_hours": 0}, "0 is not a whole number from 1 to 720"),
        ({"invitation_hours": 721}, "721 is not a whole number"),
        ({"invitation_hours": 1.5}, "1.5 is not a whole number"),
        ({"form": form_with("email")}, "Fields.email has a name that the base uses"),
        ({"form": form_with("active")}, "Fields.active has a name that the base uses"),
        ({"form": form_with("password")}, "has a name that the base uses"),
        ({"form": form_with("accept_terms")}, "has a name that the base uses"),
        ({"form": form_with("phone")}, "Fields.phone is no column of Member"),
        ({"form": form_with("nick")}, "the column nick of Member needs a default"),
        ({"form": form_with("born")}, "the column born of Member needs a default"),
        ({"form": StringField}, "is not a subclass of bulwark.ProfileForm"),
        ({"terms": Terms(version="", page=PAGE)}, "the version of the terms can't be"),
        ({"terms": Terms(version="1", page="app.nowhere")}, "'app.nowhere', which is"),
        ({"terms": Terms(version="1", page="http://x.example")}, "https://"),
        ({"terms": Terms(version="1", page="account.index")}, "is not public"),
        ({"role": "friend"}, "'friend', which is not declared"),
        ({"role": "administrator"}, "'administrator', which is not declared"),
        ({"role": "manager"}, "'users:write' of administrators"),
    ],
)
def test_a_choice_that_cannot_work_stops_the_start(
    choices: dict[str, Any], reason: str, app: Flask
):
    assert reason in refusal_of(app, **choices)


@pytest.mark.parametrize(
    "choices",
    [
        {},
        {"mode": "closed", "invitation_hours": 720},
        {"form": form_with("name"), "role": "customer"},
        {"form": form_with("plan")},
        {"terms": Terms(version="1", page=PAGE)},
    ],
)
def test_other_choices_work(choices: dict[str, Any], app: Flask):
    assert refusal_of(app, **choices) == ""
