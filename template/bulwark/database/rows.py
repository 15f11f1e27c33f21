"""Rows that are read before anything else in a request, in one round trip.

The session of a signed-in user is looked up in every request. On PostgreSQL, the ORM
needs four round trips for that: a ping, BEGIN, SELECT and ROLLBACK.
"""

from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from typing import Any, TypeVar

from sqlalchemy import Engine, Row, Select, inspect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Mapper, make_transient_to_detached
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
    """Return the columns that `instance_of` takes the values of."""
    return list(_attributes(inspect(model)).values())


def instance_of(model: type[T], values: Sequence[Any], **loaded: Any) -> T:
    """Return an instance of a model with the values of its columns, and what is loaded.

    It is detached: `db.session.add` attaches it as if the session had loaded it.
    """
    mapper: Mapper[Any] = inspect(model)
    attributes = dict(zip(_attributes(mapper), values, strict=True))
    if mapper.polymorphic_on is not None:
        kind = attributes[mapper.get_property_by_column(mapper.polymorphic_on).key]
        mapper = mapper.polymorphic_map.get(kind, mapper)
    instance: T = mapper.class_manager.new_instance()
    vars(instance).update(attributes)
    for name, value in loaded.items():
        set_committed_value(instance, name, value)
    make_transient_to_detached(instance)
    mapper.class_manager.dispatch.load(inspect(instance), None)
    return instance


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
def _attributes(mapper: Mapper[Any]) -> dict[str, Any]:
    """Return the columns of a model by their attributes, without deferred ones."""
    return {
        attribute.key: attribute.columns[0]
        for attribute in mapper.column_attrs
        if not attribute.deferred and attribute.columns[0].table is not None
    }
