"""Encrypts the values of objects when their session is flushed.

A value is bound to the primary key of its row. A database that numbers rows itself
assigns the key during the INSERT. So such a row is inserted without the value, and an
UPDATE in the same flush adds it. A key that the service assigns saves the UPDATE.
"""

from collections import defaultdict
from functools import partial
from typing import Any

from sqlalchemy import Column, ColumnElement, bindparam, event, update
from sqlalchemy.orm import Mapper, PassiveFlag, Session, attributes, object_session

from bulwark.database.blind_index import BlindIndex
from bulwark.database.encryption import Bound, Encrypted

PLAIN = "bulwark.plain"  # in session.info: what attributes contain again after a flush
UNBOUND = "bulwark.unbound"  # in session.info: new rows whose values are to be bound

Columns = dict[str, Column[Any]]


@event.listens_for(Mapper, "mapper_configured")
def _listen(mapper: Mapper[Any], _class: type[Any]) -> None:
    """Listen to models that have encrypted columns."""
    encrypted: Columns = {}
    blind: Columns = {}
    for attribute in mapper.column_attrs:
        column = attribute.columns[0]
        if not isinstance(column, Column):
            continue
        if isinstance(column.type, Encrypted):
            column.type.row_key  # noqa: B018  it raises for a key that can't be used
            encrypted[attribute.key] = column
        elif isinstance(column.type, BlindIndex):
            blind[attribute.key] = column
    if encrypted:
        listen = partial(event.listen, mapper)
        listen("before_insert", partial(_before_insert, encrypted, blind))
        listen("before_update", partial(_before_update, encrypted, blind))


def _before_insert(
    encrypted: Columns, blind: Columns, mapper: Mapper[Any], _: Any, target: Any
) -> None:
    (key,) = mapper.primary_key
    attribute = mapper.get_property_by_column(key).key
    for name, column in {attribute: key, **encrypted}.items():
        _apply_default(target, name, column)
    row = getattr(target, attribute)
    values = {name: target.__dict__.get(name) for name in encrypted}
    given = {name: value for name, value in values.items() if value is not None}
    _fill_indexes(mapper, blind, target, values)
    _replace(target, given, None if row is None else str(row))
    if row is None and given:
        session: Any = object_session(target)
        columns = {name: encrypted[name] for name in given}
        session.info.setdefault(UNBOUND, []).append((target, attribute, columns, given))


def _apply_default(target: Any, name: str, column: ColumnElement[Any]) -> None:
    """Set an attribute that has no value to the default that the INSERT would use."""
    default: Any = column.default if isinstance(column, Column) else None
    if name in target.__dict__ or default is None:
        return
    if default.is_scalar:
        setattr(target, name, default.arg)
    elif default.is_callable:
        setattr(target, name, default.arg(None))


def _before_update(
    encrypted: Columns, blind: Columns, mapper: Mapper[Any], _: Any, target: Any
) -> None:
    (key,) = mapper.primary_key
    attribute = mapper.get_property_by_column(key).key
    if attributes.get_history(target, attribute).deleted:
        raise TypeError(
            f"the primary key of {mapper.local_table} can't change: encrypted values"
            " are bound to it"
        )
    changed = {
        name: getattr(target, name)
        for name in encrypted
        if attributes.get_history(
            target,
            name,
            PassiveFlag.PASSIVE_NO_INITIALIZE,  # a deferred one stays so
        ).has_changes()
    }
    _fill_indexes(mapper, blind, target, changed)
    given = {name: value for name, value in changed.items() if value is not None}
    _replace(target, given, str(getattr(target, attribute)))


def _fill_indexes(
    mapper: Mapper[Any], blind: Columns, target: Any, values: dict[str, Any]
) -> None:
    for name, column in blind.items():
        kind: Any = column.type
        source = mapper.get_property_by_column(column.table.columns[kind.source]).key
        if source in values:
            value = values[source]
            setattr(target, name, None if value is None else kind.all(value)[0])


def _replace(target: Any, values: dict[str, Any], row: str | None) -> None:
    """Let attributes contain bound values until the flush ends."""
    session: Any = object_session(target)
    kept = session.info.setdefault(PLAIN, [])
    for name, value in values.items():
        kept.append((target, name, value))
        target.__dict__[name] = Bound(value, row)


@event.listens_for(Session, "after_flush")
def _finish(session: Session, _: Any) -> None:
    """Bind the values of new rows, and restore the attributes."""
    _restore(session)
    batches: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for target, attribute, columns, values in session.info.pop(UNBOUND, []):
        row = getattr(target, attribute)
        for table in {column.table for column in columns.values()}:
            mine = {n: c for n, c in columns.items() if c.table is table}
            bound = {f"new_{n}": Bound(values[n], str(row)) for n in mine}
            batch = (table, tuple(mine.values()), tuple(mine))
            batches[batch].append({"of_row": row, **bound})
    for (table, columns, names), rows in batches.items():
        (key,) = table.primary_key
        new: dict[Any, Any] = {
            c: bindparam(f"new_{n}") for c, n in zip(columns, names, strict=True)
        }
        statement = update(table).where(key == bindparam("of_row")).values(new)
        session.connection().execute(statement, rows)


@event.listens_for(Session, "after_soft_rollback")
def _undo(session: Session, _: Any) -> None:
    session.info.pop(UNBOUND, None)
    _restore(session)


def _restore(session: Session) -> None:
    for target, name, value in session.info.pop(PLAIN, []):
        if isinstance(target.__dict__.get(name), Bound):
            target.__dict__[name] = value
