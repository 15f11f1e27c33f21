"""What tests begin with is the same, whether it is made or restored."""

from typing import Any

import pytest
from flask import Flask
from sqlalchemy import select

from bulwark.database import db
from bulwark.identity.models import Role
from tests.beginnings import signed_in
from tests.conftest import ROWS_STAY, Visitor, add_person, delete_rows

EMAIL = "bob@example.org"


def rows(app: Flask) -> dict[str, list[Any]]:
    with app.app_context():
        return {
            table.name: [tuple(row) for row in db.session.execute(select(table))]
            for table in db.metadata.sorted_tables
            if table.name not in ROWS_STAY
        }


def sign_ins(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list to which each real sign-in adds its address."""
    seen: list[str] = []
    sign_in = Visitor.sign_in

    def counted(self: Visitor, email: str) -> Any:
        seen.append(email)
        return sign_in(self, email)

    monkeypatch.setattr(Visitor, "sign_in", counted)
    return seen


def test_what_is_restored_is_what_was_made(
    app: Flask,
    visitor: Visitor,
    other_visitor: Visitor,
    monkeypatch: pytest.MonkeyPatch,
):
    seen = sign_ins(monkeypatch)
    signed_in(visitor, EMAIL, totp=True)
    made = rows(app)
    with app.app_context():
        delete_rows()
    signed_in(other_visitor, EMAIL, totp=True)
    assert seen == [EMAIL]
    assert rows(app) == made
    assert made["users"]
    assert other_visitor.is_signed_in()


def test_nothing_is_restored_over_the_rows_of_another(
    app: Flask, visitor: Visitor, monkeypatch: pytest.MonkeyPatch
):
    seen = sign_ins(monkeypatch)
    add_person(app, "yan@example.org")
    signed_in(visitor, EMAIL, totp=True)
    assert seen == [EMAIL]
    assert len(rows(app)["users"]) == 2


def test_nothing_is_restored_once_the_roles_differ(
    app: Flask,
    visitor: Visitor,
    other_visitor: Visitor,
    monkeypatch: pytest.MonkeyPatch,
):
    seen = sign_ins(monkeypatch)
    signed_in(visitor, "ben@example.org")
    with app.app_context():
        delete_rows()
        role = Role(name="for a moment", permissions=[])
        db.session.add(role)
        db.session.commit()
        signed_in(other_visitor, "ben@example.org")
        db.session.delete(role)
        db.session.commit()
    assert len(seen) == 2
