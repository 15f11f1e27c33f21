"""Rows that are read in one round trip, and the objects made from them."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from flask import Flask, g
from sqlalchemy import (
    JSON,
    Connection,
    ForeignKey,
    String,
    column,
    event,
    func,
    insert,
    inspect,
    select,
    text,
    update,
)
from sqlalchemy.ext.mutable import MutableDict
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    ORMExecuteState,
    Session,
    column_property,
    composite,
    deferred,
    mapped_column,
    reconstructor,
    relationship,
    scoped_session,
    synonym,
    validates,
    with_loader_criteria,
)

from app.models import User
from bulwark.database import db, rows
from bulwark.identity.models import Role
from bulwark.identity.tokens import AccessToken
from tests.conftest import Visitor
from tests.support import bearer, find_user, make_token

PROCESS = select(func.pg_backend_pid())


class Base(DeclarativeBase):
    """The base of these models: a team may have models with the same names."""


class Animal(Base):
    """A model that the ORM loads by its kind."""

    __tablename__ = "test_animals"
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "animal"}  # noqa: RUF012

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(8))


class Cat(Animal):
    __tablename__ = "test_cats"
    __mapper_args__ = {"polymorphic_identity": "cat"}  # noqa: RUF012

    id: Mapped[int] = mapped_column(ForeignKey("test_animals.id"), primary_key=True)
    lives: Mapped[int]


@dataclass
class Size:
    width: int
    height: int


class Note(Base):
    """A model whose mapping changes what columns are called, and when they load."""

    __tablename__ = "test_notes"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column("name", String(8))
    story: Mapped[str] = deferred(mapped_column(String(99)))
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("test_notes.id"))
    heading: Mapped[str] = column_property("# " + column("name"))
    parent: Mapped["Note | None"] = relationship(remote_side="Note.id", lazy="joined")
    name = synonym("title")

    @validates("title")
    def refuse(self, _: str, title: str) -> str:
        raise AssertionError(title)  # a value that is stored is not validated again


class Shape(Base):
    """A model of which the ORM makes more than its columns."""

    __tablename__ = "test_shapes"

    id: Mapped[int] = mapped_column(primary_key=True)
    tags: Mapped[dict[str, Any]] = mapped_column(MutableDict.as_mutable(JSON))
    size: Mapped[Size] = composite(mapped_column("width"), mapped_column("height"))
    area = 0

    @reconstructor
    def compute(self) -> None:
        self.area = self.size.width * self.size.height


@pytest.fixture
def session(app: Flask) -> Iterator[scoped_session[Any]]:
    """A session, with the tables of these models."""
    with app.app_context():
        Base.metadata.create_all(db.engine)
        yield db.session
        db.session.remove()
        Base.metadata.drop_all(db.engine)


def load_first(model: type[Any]) -> Any:
    """Load a row in the way of a request, with nothing in the session."""
    db.session.remove()
    row = rows.fetch(select(*rows.columns_of(model)), {})[0]
    return rows.load(model, row)


def first_user() -> User:
    user = load_first(User)
    assert isinstance(user, User)
    return user


def test_an_instance_is_as_if_the_session_had_loaded_it(app: Flask, person: str):
    with app.app_context():
        user = first_user()
        state = inspect(user)
        assert state.persistent
        assert not state.modified
        assert db.session.scalars(select(User)).unique().one() is user
        user.email = "changed@example.org"
        db.session.commit()
        assert db.session.scalars(select(User.email)).one() == "changed@example.org"


def test_an_instance_loads_what_it_lacks(app: Flask, person: str):
    with app.app_context():
        user = first_user()
        assert list(user.webauthn) == []


def test_a_request_uses_the_user_that_the_session_has_already(
    app: Flask, visitor: Visitor, person: str
):
    visitor.sign_in(person)
    with app.app_context():
        user = find_user(app, person)
        assert visitor.get("/account").status_code == 200
        assert g._login_user is user


def test_a_request_uses_the_token_that_the_session_has_already(
    app: Flask, visitor: Visitor, person: str
):
    with app.app_context():
        made = make_token(app, person, "users:read")
        token = db.session.scalars(select(AccessToken)).one()
        assert visitor.get("/admin/users", headers=bearer(made)).status_code == 403
        assert token.last_used_at


def test_listeners_for_loaded_instances_are_called(app: Flask, person: str):
    loaded: list[Any] = []

    def remember(user: User, context: Any) -> None:
        loaded.append((user, context.session))

    with app.app_context(), listening(User, "load", remember):
        assert loaded == [(first_user(), db.session())]


def test_a_session_that_hides_users_ends_their_sessions(
    app: Flask, visitor: Visitor, person: str
):
    def hide(state: ORMExecuteState) -> None:
        hidden = with_loader_criteria(User, User.email != person)
        state.statement = state.statement.options(hidden)

    visitor.sign_in(person)
    with listening(Session, "do_orm_execute", hide):
        assert visitor.get("/account").status_code == 302
    assert visitor.get("/account").status_code == 200


def test_an_instance_has_the_class_of_its_kind(session):
    session.add_all([Cat(lives=9)])
    session.commit()
    cat = load_first(Animal)
    assert (type(cat), cat.lives) == (Cat, 9)


def test_an_instance_has_the_attributes_of_its_mapping(session):
    values = {"title": "a", "story": "b"}
    session.execute(insert(Note).values(id=1, **values))
    session.execute(insert(Note).values(id=2, parent_id=1, **values))
    session.commit()
    note = load_first(Note)
    assert {"title", "parent_id"} <= vars(note).keys()  # in the look-up itself
    assert (note.title, note.name, note.heading) == ("a", "a", "# a")
    assert (note.story, note.parent) == ("b", None)


def test_an_instance_has_what_the_orm_makes_of_its_columns(session):
    session.execute(insert(Shape).values(tags={}, width=2, height=3))
    session.commit()
    shape = load_first(Shape)
    assert (shape.size, shape.area) == (Size(2, 3), 6)
    shape.tags["new"] = True
    session.commit()
    assert load_first(Shape).tags == {"new": True}


def test_a_user_is_loaded_again_after_a_rollback(app: Flask, person: str):
    with app.app_context():
        user = first_user()
        user.email = "other@example.org"
        db.session.flush()
        db.session.rollback()
        assert user.email == person
        db.session.execute(update(User).values(active=False))
        db.session.commit()
        assert not user.active


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
    with app.app_context():
        if not rows.is_plain(User):
            pytest.skip("the ORM loads this service's users")
        db.engine.dispose()  # of several connections, the pool would take each in turn
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


@contextmanager
def listening(target: Any, name: str, listener: Callable[..., Any]) -> Iterator[None]:
    event.listen(target, name, listener)
    try:
        yield
    finally:
        event.remove(target, name, listener)


def _only_on_postgresql(app: Flask) -> None:
    with app.app_context():
        if db.engine.dialect.name != "postgresql":
            pytest.skip("SQLite has no connections to a server")


def _end(process: int) -> None:
    """End a connection from the server's side, as the server's restart does."""
    url = db.engine.url.set(drivername="postgresql")
    with psycopg.connect(url.render_as_string(hide_password=False)) as connection:
        connection.execute("SELECT pg_terminate_backend(%s, 5000)", (process,))
