"""Rows that are read before anything else in a request, in one round trip.

The session of a signed-in user is looked up in every request. On PostgreSQL, the ORM
needs four round trips for that: a ping, BEGIN, SELECT and ROLLBACK.
"""

from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from typing import Any, TypeVar

from sqlalchemy import Column, Engine, Row, Select, inspect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Mapper, Session, make_transient_to_detached
from sqlalchemy.orm.attributes import set_committed_value

from bulwark.database import db

T = TypeVar("T")


def fetch(statement: Select[Any], values: Mapping[str, Any]) -> Sequence[Row[Any]]:
    """Return the rows of a SELECT, which runs in no transaction.

    If the connection turns out to be broken, the statement runs once more on another:
    it only reads.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: the database failed.
    """
    try:
        return _fetch(statement, values)
    except DBAPIError as error:
        if not error.connection_invalidated:
            raise
        return _fetch(statement, values)


def columns_of(model: type[Any]) -> list[Any]:
    """Return the columns that `load` and `instance_of` take the values of."""
    return list(_attributes(inspect(model)).values())


def instance_of(model: type[T], values: Sequence[Any], **loaded: Any) -> T:
    """Return an instance of a model of the base with the values of its columns.

    It is detached.
    """
    mapper: Mapper[Any] = inspect(model)
    instance: T = mapper.class_manager.new_instance()
    vars(instance).update(zip(_attributes(mapper), values, strict=True))
    for name, value in loaded.items():
        set_committed_value(instance, name, value)
    make_transient_to_detached(instance)
    return instance


def load(model: type[T], values: Sequence[Any], **loaded: Any) -> T | None:
    """Return the session's instance of a row, as if the session had loaded it.

    The ORM loads it, if it would do more than set the values of the columns: for models
    with subclasses or listeners. It also finds what the session has already.

    Args:
        model: the model.
        values: those of `columns_of`.
        loaded: values of other attributes, which the ORM would load when asked.
    """
    mapper: Mapper[Any] = inspect(model)
    session: Session = db.session()
    key = tuple(values[position] for position in _key_positions(mapper))
    known = mapper.identity_key_from_primary_key(key) in session.identity_map
    if known or not is_plain(model):
        return session.get(model, key)
    instance = instance_of(model, values, **loaded)
    session.add(instance)
    return instance


def is_plain(model: type[Any]) -> bool:
    """Return whether to load an instance is no more than to set its columns."""
    mapper: Mapper[Any] = inspect(model)
    session: Session = db.session()
    listeners = (
        mapper.class_manager.dispatch.load,  # of a reconstructor or a composite, too
        session.dispatch.do_orm_execute,  # it may hide rows
        session.dispatch.loaded_as_persistent,
    )
    return mapper.polymorphic_on is None and not any(listeners)


def _fetch(statement: Select[Any], values: Mapping[str, Any]) -> Sequence[Row[Any]]:
    with _without_transactions(db.engine).connect() as connection:
        return connection.execute(statement, values).all()


@lru_cache
def _without_transactions(engine: Engine) -> Engine:
    """Return an engine with the same pool, whose connections begin no transaction."""
    if engine.dialect.name != "postgresql":
        return engine  # Python's sqlite3 begins none for a SELECT
    return engine.execution_options(isolation_level="AUTOCOMMIT")


@cache
def _key_positions(mapper: Mapper[Any]) -> list[int]:
    """Return where the values of the primary key are."""
    names = list(_attributes(mapper))
    key = map(mapper.get_property_by_column, mapper.primary_key)
    return [names.index(attribute.key) for attribute in key]


@cache
def _attributes(mapper: Mapper[Any]) -> dict[str, Any]:
    """Return the columns by attribute; the ORM loads deferred ones and expressions."""
    return {
        attribute.key: attribute.columns[0]
        for attribute in mapper.column_attrs
        if not attribute.deferred and isinstance(attribute.columns[0], Column)
    }
