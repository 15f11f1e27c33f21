"""What many tests begin with, such as a user who is signed in.

Signing in takes four requests, so it is done once; then rows and cookies are restored.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from flask import Flask
from sqlalchemy import null, select

from bulwark.audit import trail
from bulwark.database import db
from tests.conftest import ROWS_STAY, Visitor, add_person

FRESH = 60  # seconds; on a slow machine, sessions would age during the tests


@dataclass
class Beginning:
    """The rows of all tables, and the cookies of a visitor."""

    value: Any
    cookies: dict[Any, Any]
    roles: list[Any]
    rows: list[tuple[Any, dict[str, Any]]]
    made_at: float = field(default_factory=time.monotonic)


_made: dict[tuple[Flask, str], Beginning] = {}


def signed_in(visitor: Visitor, email: str, *roles: str, totp: bool = False) -> Visitor:
    """Add a user as `add_person` does, and sign them in."""

    def make() -> None:
        visitor.sign_in(add_person(visitor.app, email, *roles, totp=totp))

    begin(visitor, f"{email} {roles} {totp}", make)
    return visitor


def begin(visitor: Visitor, name: str, make: Callable[[], Any]) -> Any:
    """Make what a test begins with, or restore it: rows, and one visitor's cookies.

    Args:
        visitor: the one whose browser gets the cookies.
        name: differs for each beginning.
        make: makes it with requests.

    Returns:
        what `make` returned.
    """
    app, cookies = visitor.app, visitor.client._cookies
    assert cookies is not None
    with app.app_context():
        is_first = not (cookies or db.session.execute(select(_table("users"))).first())
        roles = db.session.execute(select(_table("roles"))).all()
        kept = _made.get((app, name))
        fresh = kept and time.monotonic() - kept.made_at < FRESH
        if kept and fresh and is_first and kept.roles == roles:
            _restore(kept)
            cookies.update(kept.cookies)
            return kept.value
    value = make()
    if is_first:
        with app.app_context():
            new = Beginning(value, dict(cookies), list(roles), _rows())
        _made[app, name] = new
    return value


def _table(name: str) -> Any:
    return db.metadata.tables[name]


def _rows() -> list[tuple[Any, dict[str, Any]]]:
    return [
        (table, {key: null() if value is None else value for key, value in row.items()})
        for table in db.metadata.sorted_tables
        if table.name not in ROWS_STAY
        for row in db.session.execute(select(table)).mappings()
    ]


def _restore(kept: Beginning) -> None:
    with trail.unlocked():
        for table, row in kept.rows:
            db.session.execute(table.insert().values(row))
    db.session.commit()
