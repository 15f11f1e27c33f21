"""Roles: changes act at once, nobody rises by them, an administrator always remains."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import delete, func, select

from bulwark.audit.events import SecurityEvent
from bulwark.database import db
from bulwark.identity import accounts, invitations, roles, users
from bulwark.identity.authorization import NotAllowedError, RefusedError
from bulwark.identity.models import Role
from bulwark.jobs import queue
from bulwark.web.access import ADMINISTRATOR
from tests.conftest import Visitor, add_person

WHY = {"reason": "A new job"}
HELPER = ["users:read", "users:write", "roles:write"]


@pytest.fixture(autouse=True)
def _declared_roles_only(app: Flask) -> Iterator[None]:
    yield
    with app.app_context():
        declared = app.extensions["roles"]
        db.session.execute(delete(Role).where(Role.name.not_in(declared)))
        db.session.commit()


@pytest.fixture
def helper(app: Flask, other_visitor: Visitor) -> Visitor:
    """Somebody who is signed in, and may do some of what administrators may."""
    add_role(app, "helper", *HELPER)
    other_visitor.sign_in(add_person(app, "bob@example.org", "helper"))
    return other_visitor


def add_role(app: Flask, name: str, *permissions: str) -> int:
    with app.app_context():
        role = Role(name=name, permissions=list(permissions))
        db.session.add(role)
        db.session.commit()
        return role.id


def id_of(app: Flask, email: str) -> int:
    with app.app_context():
        found = users.find(email)
        assert found
        return found.id


def role_id(app: Flask, name: str) -> int:
    with app.app_context():
        return db.session.scalars(select(Role.id).where(Role.name == name)).one()


def roles_of(app: Flask, email: str) -> list[str]:
    with app.app_context():
        found = users.find(email)
        assert found
        return sorted(role.name for role in found.roles)


def act(app: Flask, email: str, role: str, what: str) -> str:
    return f"/admin/users/{id_of(app, email)}/roles/{role_id(app, role)}/{what}"


def recorded(app: Flask) -> list[SecurityEvent]:
    with app.app_context():
        ignored = ("authn_login_success", "authn_mfa_success")
        query = select(SecurityEvent).where(SecurityEvent.name.not_in(ignored))
        return list(db.session.scalars(query.order_by(SecurityEvent.id)))


# --- Giving and taking ----------------------------------------------------------------


def test_a_role_acts_at_the_next_request_given_and_taken(
    app: Flask, ada: Visitor, other_visitor: Visitor, person: str
):
    add_role(app, "reader", "users:read")
    other_visitor.sign_in(person)
    assert other_visitor.get("/admin/users").status_code == 403
    ada.submit(act(app, person, "reader", "give"), WHY)
    assert other_visitor.get("/admin/users").status_code == 200
    ada.submit(act(app, person, "reader", "take"), WHY)
    assert other_visitor.get("/admin/users").status_code == 403


def test_a_role_given_or_taken_is_one_event(app: Flask, ada: Visitor, person: str):
    add_role(app, "reader", "users:read")
    for what in ("give", "take"):
        ada.submit(act(app, person, "reader", what), WHY)
    events = recorded(app)
    assert [(e.name, e.details) for e in events] == [
        ("authz_change", {"role": "reader", "given": True}),
        ("authz_change", {"role": "reader", "given": False}),
    ]
    assert {e.reason for e in events} == {WHY["reason"]}
    assert {e.user_id for e in events} == {id_of(app, person)}


def test_giving_and_taking_twice_is_refused(app: Flask, ada: Visitor, person: str):
    add_role(app, "reader", "users:read")
    never = ada.submit(act(app, person, "reader", "take"), WHY)
    assert "They do not have the role reader." in never.text
    ada.submit(act(app, person, "reader", "give"), WHY)
    again = ada.submit(act(app, person, "reader", "give"), WHY)
    assert "They already have the role reader." in again.text
    assert len(recorded(app)) == 1


def test_who_becomes_administrator_is_led_to_a_second_factor(
    app: Flask, ada: Visitor, other_visitor: Visitor, person: str
):
    other_visitor.sign_in(person)
    ada.submit(act(app, person, ADMINISTRATOR, "give"), WHY)
    assert other_visitor.get("/admin/users").location == "/account/second-factor"


# --- Making and changing --------------------------------------------------------------


def fields(*permissions: str, **more: str) -> Any:
    return {"permissions": list(permissions), **WHY, **more}


def test_a_role_is_made_changed_and_deleted_each_with_an_event(
    app: Flask, ada: Visitor
):
    assert (
        ada.submit(
            "/admin/roles/new", fields("users:read", name="night shift")
        ).location
        == "/admin/roles"
    )
    one = f"/admin/roles/{role_id(app, 'night shift')}"
    assert "checked" in ada.get(one).text
    ada.submit(one, fields("users:write", requires_second_factor="y"))
    with app.app_context():
        role = db.session.scalars(select(Role).where(Role.name == "night shift")).one()
        assert (role.permissions, role.requires_second_factor) == (
            ["users:write"],
            True,
        )
    ada.submit(f"{one}/delete", WHY)
    assert ada.get(one).status_code == 404
    made, changed, deleted = recorded(app)
    assert {e.name for e in (made, changed, deleted)} == {
        "privilege_permissions_changed"
    }
    assert made.details["action"] == "made"
    assert changed.details == {
        "role": "night shift",
        "action": "changed",
        "added": ["users:write"],
        "removed": ["users:read"],
        "requires_second_factor": True,
    }
    assert deleted.details["action"] == "deleted"


def test_a_changed_role_acts_at_the_next_request(
    app: Flask, ada: Visitor, helper: Visitor
):
    assert helper.get("/admin/users").status_code == 200
    ada.submit(f"/admin/roles/{role_id(app, 'helper')}", fields("users:write"))
    assert helper.get("/admin/users").status_code == 403


def test_a_role_that_requires_a_second_factor_asks_at_the_next_request(
    app: Flask, ada: Visitor, helper: Visitor
):
    one = f"/admin/roles/{role_id(app, 'helper')}"
    ada.submit(one, fields(*HELPER, requires_second_factor="y"))
    assert helper.get("/admin/users").location == "/account/second-factor"


def test_nothing_changed_is_no_event(app: Flask, ada: Visitor):
    one = add_role(app, "reader", "users:read")
    answer = ada.submit(f"/admin/roles/{one}", fields("users:read"))
    assert "Nothing was changed." in answer.text
    assert recorded(app) == []


def test_a_permission_that_nobody_declared_is_refused(app: Flask, ada: Visitor):
    answer = ada.submit("/admin/roles/new", fields("root", name="evil"))
    assert "That did not work" in answer.text
    assert ada.send("/admin/roles/new", fields("root", name="evil")).status_code == 400
    assert recorded(app) == []


def test_a_name_that_no_role_can_have_is_refused(app: Flask, ada: Visitor):
    for name in ("", "UPPER", "a" * 81, "-x", ADMINISTRATOR):
        answer = ada.submit("/admin/roles/new", fields("users:read", name=name))
        assert "That did not work" in answer.text, repr(name)
    assert recorded(app) == []


def test_a_role_that_somebody_has_is_kept(app: Flask, ada: Visitor, helper: Visitor):
    one = f"/admin/roles/{role_id(app, 'helper')}/delete"
    assert "Users have this role" in ada.submit(one, WHY).text
    assert helper.get("/admin/users").status_code == 200


def test_a_role_that_the_code_declares_is_kept(
    app: Flask, ada: Visitor, monkeypatch: pytest.MonkeyPatch
):
    one = add_role(app, "clerk")
    monkeypatch.setitem(app.extensions["roles"], "clerk", [])
    answer = ada.submit(f"/admin/roles/{one}/delete", WHY)
    assert "The code declares this role" in answer.text
    monkeypatch.delitem(app.extensions["roles"], "clerk")


def test_the_role_of_administrators_is_neither_changed_nor_deleted(
    app: Flask, ada: Visitor
):
    one = f"/admin/roles/{role_id(app, ADMINISTRATOR)}"
    for page in (one, f"{one}/delete"):
        answer = ada.submit(page, fields("users:read"))
        assert "Administrators always have every permission." in answer.text
    assert ada.get("/admin/users").status_code == 200


# --- Nobody rises ---------------------------------------------------------------------


def test_nobody_acts_on_people_who_may_do_more(
    app: Flask, ada: Visitor, helper: Visitor
):
    target = f"/admin/users/{id_of(app, 'ada@example.org')}"
    for act in (
        "lock",
        "unlock",
        "reset",
        "second-factor/require",
        "second-factor/allow-without",
        "sessions/end",
        "sessions/1/end",
    ):
        before = len(recorded(app))
        assert helper.get(f"{target}/{act}").status_code == 403, act
        assert helper.send(f"{target}/{act}", WHY).status_code == 403, act
        assert [e.name for e in recorded(app)[before:]] == ["authz_fail"] * 2, act
    assert ada.get("/admin/users").status_code == 200


def test_nobody_gives_or_takes_a_role_that_allows_more(
    app: Flask, ada: Visitor, helper: Visitor, person: str
):
    for email, what in (
        (person, "give"),
        ("bob@example.org", "give"),
        ("ada@example.org", "take"),
    ):
        path = act(app, email, ADMINISTRATOR, what)
        assert helper.send(path, WHY).status_code == 403
    assert roles_of(app, person) == []
    assert roles_of(app, "bob@example.org") == ["helper"]
    assert roles_of(app, "ada@example.org") == [ADMINISTRATOR]


def test_even_all_permissions_do_not_make_an_administrator(
    app: Flask, ada: Visitor, other_visitor: Visitor
):
    add_role(app, "deputy", *app.extensions["permissions"])
    other_visitor.sign_in(add_person(app, "bob@example.org", "deputy"))
    path = act(app, "bob@example.org", ADMINISTRATOR, "give")
    assert other_visitor.send(path, WHY).status_code == 403
    lock = f"/admin/users/{id_of(app, 'ada@example.org')}/lock"
    assert other_visitor.send(lock, WHY).status_code == 403


def test_nobody_puts_into_a_role_what_they_may_not_do(
    app: Flask, helper: Visitor, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(app.extensions["permissions"], "money:spend", "Spend money")
    own = f"/admin/roles/{role_id(app, 'helper')}"
    assert "money:spend" not in helper.get(own).text
    for path, name in ((own, {}), ("/admin/roles/new", {"name": "rich"})):
        wanted = fields(*HELPER, "money:spend", **name)
        assert helper.send(path, wanted).status_code == 400
    rich = add_role(app, "rich", "money:spend")
    assert helper.send(f"/admin/roles/{rich}", fields(*HELPER)).status_code == 403
    assert helper.send(f"/admin/roles/{rich}/delete", WHY).status_code == 403
    assert {e.name for e in recorded(app)} == {"authz_fail"}


def test_the_operations_themselves_let_nobody_rise(app: Flask, helper: Visitor):
    """The pages check too; this is the check inside the transaction."""
    add_person(app, "ada@example.org", ADMINISTRATOR)
    with app.app_context():
        ada, bob = users.find("ada@example.org"), users.find("bob@example.org")
        assert ada
        assert bob
        admin = ada.roles[0]
        rich = Role(name="rich", permissions=["money:spend"])
        db.session.add(rich)
        why: Any = {"by": bob, "reason": "for fun"}
        tries: list[Any] = [
            lambda: accounts.lock(ada, **why),
            lambda: accounts.unlock(ada, **why),
            lambda: accounts.force_reset(ada, **why),
            lambda: accounts.require_second_factor(ada, False, **why),
            lambda: accounts.reset_factors(ada, **why),
            lambda: accounts.sign_out(ada, **why),
            lambda: invitations.invite("ada@example.org", **why),
            lambda: roles.give_role(bob, admin, **why),
            lambda: roles.take_role(ada, admin, **why),
            lambda: roles.make_role("new", ["money:spend"], False, **why),
            lambda: roles.change_role(rich, [], False, **why),
            lambda: roles.change_role(bob.roles[0], ["money:spend"], False, **why),
            lambda: roles.delete_role(rich, **why),
        ]
        for attempt in tries:
            with pytest.raises(NotAllowedError):
                attempt()
        db.session.rollback()


# --- An administrator remains ---------------------------------------------------------


def test_the_last_administrator_stays(app: Flask, ada: Visitor):
    lock = f"/admin/users/{id_of(app, 'ada@example.org')}/lock"
    for path in (lock, act(app, "ada@example.org", ADMINISTRATOR, "take")):
        answer = ada.submit(path, WHY)
        assert "is the last administrator" in answer.text
    assert ada.get("/admin/users").status_code == 200
    assert recorded(app) == []


@pytest.mark.parametrize("why", ["locked", "invited"])
def test_who_cannot_sign_in_does_not_count_as_an_administrator(
    app: Flask, ada: Visitor, why: str
):
    add_person(app, "eve@example.org", ADMINISTRATOR)
    with app.app_context():
        eve = users.find("eve@example.org")
        assert eve
        if why == "locked":
            eve.active = False
        else:
            eve.password = eve.confirmed_at = None
        db.session.commit()
    answer = ada.submit(act(app, "ada@example.org", ADMINISTRATOR, "take"), WHY)
    assert "is the last administrator" in answer.text


def test_one_of_two_administrators_may_go(app: Flask, ada: Visitor):
    add_person(app, "eve@example.org", ADMINISTRATOR)
    ada.submit(act(app, "ada@example.org", ADMINISTRATOR, "take"), WHY)
    assert ada.get("/admin/users").status_code == 403


@pytest.fixture
def threaded(
    app: Flask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Flask]:
    """The service on a database that threads can share: not SQLite in memory."""
    if app.config["SQLALCHEMY_DATABASE_URI"].get_backend_name() == "postgresql":
        yield app
        return
    from app import create_app

    monkeypatch.setenv("APP_DATABASE_URL", f"sqlite:///{tmp_path}/service.db")
    queue.storage.close()
    own = create_app()
    with own.app_context():
        db.create_all()
        queue.create_tables()
        list(roles.make_roles())
        db.session.commit()
    yield own
    with own.app_context():
        db.session.remove()
        db.engine.dispose()
    queue.storage.close()
    queue.init_app(app, app.extensions["bulwark"])


def test_in_a_race_an_administrator_remains(threaded: Flask):
    names = [f"{number}@example.org" for number in range(8)]
    for name in names:
        add_person(threaded, name, ADMINISTRATOR)
    together = threading.Barrier(len(names), timeout=30)
    refused: list[str] = []
    broken: list[Exception] = []

    def remove(number: int) -> None:
        try:
            with threaded.app_context():
                user = users.find(names[number])
                assert user
                role = user.roles[0]
                together.wait()
                why: Any = {"by": None, "reason": "a race"}
                if number % 2:
                    accounts.lock(user, **why)
                else:
                    roles.take_role(user, role, **why)
                db.session.commit()
        except RefusedError as error:
            refused.append(str(error))
        except Exception as error:  # noqa: BLE001
            broken.append(error)

    threads = [threading.Thread(target=remove, args=(n,)) for n in range(len(names))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not broken
    assert len(refused) == 1
    with threaded.app_context():
        person: Any = threaded.extensions["security"].datastore.user_model
        left = select(func.count(person.id)).where(
            person.active, person.roles.any(Role.name == ADMINISTRATOR)
        )
        assert db.session.scalar(left) == 1
