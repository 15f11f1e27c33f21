"""Rows that are read in one round trip, and the objects made from them."""

import tempfile
from typing import Any

import psycopg
import pytest
from flask import Flask
from sqlalchemy import (
    Connection,
    ForeignKey,
    String,
    event,
    func,
    inspect,
    select,
    text,
)
from sqlalchemy.orm import Mapped, deferred, mapped_column

from app.models import User
from bulwark.database import Model, db, rows
from bulwark.identity.models import Role
from tests.conftest import Visitor

PROCESS = select(func.pg_backend_pid())


class Animal(Model):
    """A model that the ORM loads by its kind, with a column that is not loaded."""

    __tablename__ = "test_animals"
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "animal"}  # noqa: RUF012

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(8))
    story: Mapped[str] = deferred(mapped_column(String(99)))


class Cat(Animal):
    __tablename__ = "test_cats"
    __mapper_args__ = {"polymorphic_identity": "cat"}  # noqa: RUF012

    id: Mapped[int] = mapped_column(ForeignKey("test_animals.id"), primary_key=True)


Model.metadata.remove(Cat.__table__)  # type: ignore[arg-type]
Model.metadata.remove(Animal.__table__)  # type: ignore[arg-type]


def first_user(app: Flask) -> User:
    (row,) = rows.fetch(select(*rows.columns_of(User)), {})
    return rows.instance_of(User, row, roles=[])


def test_an_instance_is_as_if_the_session_had_loaded_it(app: Flask, person: str):
    with app.app_context():
        user = first_user(app)
        db.session.add(user)
        state = inspect(user)
        assert state.persistent
        assert not state.modified
        assert db.session.scalars(select(User)).one() is user
        user.email = "changed@example.org"
        db.session.commit()
        assert db.session.scalars(select(User.email)).one() == "changed@example.org"


def test_an_instance_loads_what_it_lacks(app: Flask, person: str):
    with app.app_context():
        user = first_user(app)
        db.session.add(user)
        assert list(user.webauthn) == []


def test_listeners_for_loaded_instances_are_called(app: Flask, person: str):
    loaded: list[User] = []

    def remember(user: User, _: object) -> None:
        loaded.append(user)

    event.listen(User, "load", remember)
    try:
        with app.app_context():
            assert loaded == [first_user(app)]
    finally:
        event.remove(User, "load", remember)


def test_an_instance_has_the_class_of_its_kind():
    assert [c.key for c in rows.columns_of(Animal)] == ["id", "kind"]
    assert type(rows.instance_of(Animal, (1, "cat"))) is Cat
    assert type(rows.instance_of(Animal, (1, "animal"))) is Animal


def test_nothing_is_left_open_after_a_look_up(app: Flask):
    with app.app_context():
        rows.fetch(select(Role.name), {})
        assert not db.session.registry.has()
        if db.engine.dialect.name == "postgresql":
            open_now = text(
                "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in%'"
                " AND datname = current_database()"
            )
            assert rows.fetch(select(text(f"({open_now.text})")), {})[0][0] == 0


def test_a_signed_in_request_takes_one_round_trip(
    app: Flask, visitor: Visitor, person: str
):
    _only_on_postgresql(app)
    visitor.sign_in(person)
    visitor.get("/dev/none")  # prepared statements, and what is made once
    with app.app_context(), tempfile.TemporaryFile() as trace:
        connection = db.engine.raw_connection()
        pgconn = connection.driver_connection.pgconn  # type: ignore[union-attr]
        connection.close()  # the next request takes the same one
        pgconn.trace(trace.fileno())
        assert visitor.get("/dev/none").status_code == 404
        pgconn.untrace()
        trace.seek(0)
        sent = [line for line in trace.read().decode().splitlines() if "\tF\t" in line]
    assert len([line for line in sent if "Sync" in line or "Query" in line]) == 1, sent


def test_a_connection_that_the_server_closed_is_replaced(
    app: Flask, visitor: Visitor, person: str
):
    _only_on_postgresql(app)
    visitor.sign_in(person)
    with app.app_context():
        _end(rows.fetch(PROCESS, {})[0][0])
    assert visitor.get("/account").status_code == 200
    with app.app_context():
        _end(rows.fetch(PROCESS, {})[0][0])
        assert db.session.scalar(select(User.email)) == person


def test_a_look_up_is_repeated_once_on_a_broken_connection(app: Flask, person: str):
    _only_on_postgresql(app)
    with app.app_context():
        broken = iter([True, False])

        def end_first(connection: Connection, *_: object) -> None:
            if next(broken):
                driver: Any = connection.connection.driver_connection
                _end(driver.info.backend_pid)

        event.listen(db.engine, "before_cursor_execute", end_first)
        try:
            assert rows.fetch(select(User.email), {})[0][0] == person
        finally:
            event.remove(db.engine, "before_cursor_execute", end_first)


def _only_on_postgresql(app: Flask) -> None:
    with app.app_context():
        if db.engine.dialect.name != "postgresql":
            pytest.skip("SQLite has no connections to a server")


def _end(process: int) -> None:
    """End a connection from the server's side, as the server's restart does."""
    url = db.engine.url.set(drivername="postgresql")
    with psycopg.connect(url.render_as_string(hide_password=False)) as connection:
        connection.execute("SELECT pg_terminate_backend(%s, 5000)", (process,))
