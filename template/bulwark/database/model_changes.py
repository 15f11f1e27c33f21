"""How `flask db migrate` writes model changes: one file for both databases."""

import re
from collections import defaultdict
from collections.abc import Collection, Iterator
from copy import copy
from typing import Any, Literal

import sqlalchemy
from alembic.autogenerate.api import AutogenContext
from alembic.runtime.migration import MigrationContext
from alembic.util import CommandError
from sqlalchemy import (
    ARRAY,
    Boolean,
    Connection,
    DefaultClause,
    Dialect,
    Enum,
    Index,
    MetaData,
    String,
    Table,
    TypeDecorator,
    UniqueConstraint,
    inspect,
)
from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.dialects.sqlite.base import SQLiteDialect
from sqlalchemy.exc import IdentifierError
from sqlalchemy.sql import ClauseElement
from sqlalchemy.sql.elements import conv
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeEngine

from bulwark.database.postgresql_enums import enum_of, enums

# In the repr() of a type: text in quotes, or the name of a type.
NAME = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|\b([A-Za-z_]\w*)(?=\()""")
BOOLEANS = {
    **dict.fromkeys(("1", "t", "true"), "sa.true()"),
    **dict.fromkeys(("0", "f", "false"), "sa.false()"),
}


class _SQLite(SQLiteDialect):
    """Keeps types as they are declared; a real dialect replaces them with its own."""

    def type_descriptor(self, typeobj: Any) -> Any:
        return typeobj


class _PostgreSQL(PGDialect):
    """The same for PostgreSQL."""

    def type_descriptor(self, typeobj: Any) -> Any:
        return typeobj


DIALECTS: tuple[Dialect, Dialect] = (
    _SQLite(),
    _PostgreSQL(),  # type: ignore[no-untyped-call]
)


def render(kind: str, item: Any, context: AutogenContext) -> str | Literal[False]:
    """Render a type or a default that both databases accept."""
    if kind == "type":
        written, other = (_written(_stored(item, d), context) for d in DIALECTS)
        same = written == other
        return written if same else f"{written}.with_variant({other}, 'postgresql')"
    return _render_default(item) if kind == "server_default" else False


def _stored(item: TypeEngine[Any], dialect: Dialect) -> TypeEngine[Any]:
    """Return what a database stores for a type: a migration outlives the code."""
    variant = item._variant_mapping.get(dialect.name)
    if variant is not None:
        return _stored(variant, dialect)
    if isinstance(item, TypeDecorator) and _package(item) != "sqlalchemy":
        return _stored(item.load_dialect_impl(dialect), dialect)
    if isinstance(item, ARRAY):
        array = copy(item)
        array.item_type = _stored(item.item_type, dialect)
        return array
    return item


def _package(item: TypeEngine[Any]) -> str:
    return type(item).__module__.partition(".")[0]


def _written(item: TypeEngine[Any], context: AutogenContext) -> str:
    """Render a type, in which each name has its module."""
    if isinstance(item, Enum) and item.create_constraint:
        raise CommandError(
            f"the enum {item.name!r} has create_constraint=True: no migration could add"
            " a member to it later. Remove that; PostgreSQL checks enums by itself"
        )
    module = type(item).__module__
    dialect = re.match(r"sqlalchemy\.dialects\.(\w+)", module)
    if _package(item) != "sqlalchemy":
        context.imports.add(f"import {module}")
    elif dialect:
        context.imports.add(f"from sqlalchemy.dialects import {dialect[1]}")
        module = dialect[1]
    else:
        module = "sa.types"

    def qualified(found: re.Match[str]) -> str:
        name = found[1]
        if name is None:
            return found[0]
        if found.start() > 0 or module == "sa.types":
            return f"sa.{name}" if hasattr(sqlalchemy, name) else f"{module}.{name}"
        return f"{module}.{name}"

    return NAME.sub(qualified, repr(item))


def _render_default(item: Any) -> str | Literal[False]:
    """Render a server default that is correct on both databases."""
    if not isinstance(item, DefaultClause):
        return False
    argument, column = item.arg, item.column
    if column is not None and isinstance(column.type, Boolean):
        text = str(argument).strip("'").lower()
        if text in BOOLEANS:
            return BOOLEANS[text]
    if not isinstance(argument, ClauseElement):
        return False
    if isinstance(argument, FunctionElement) and not list(argument.clauses):
        return f"sa.func.{argument.name}()"
    texts = {str(argument.compile(dialect=dialect)) for dialect in DIALECTS}
    if len(texts) > 1:
        raise CommandError(
            f"the server_default of {column} is not the same on SQLite and PostgreSQL,"
            f" {sorted(texts)}: use sqlalchemy.text() with SQL that both accept"
        )
    return False


def type_differs(
    context: MigrationContext, _: object, __: object, there: Any, wanted: Any
) -> bool | None:
    """Ignore that an enum grew on SQLite, which never enforces the length of text."""
    enum, on_sqlite = enum_of(wanted), context.dialect.name == "sqlite"
    if not on_sqlite or enum is None or not isinstance(there, String):
        return None
    return False if (there.length or 0) <= (enum.length or 0) else None


def is_new_or_gone(
    context: MigrationContext, metadata: MetaData, item: Any, kind: str, reflected: bool
) -> bool:
    """Return whether an item that only the models or only the database has is a change.

    Items without a name in the models keep the name that they have in the database.
    """
    if kind == "check_constraint":
        rule = None if reflected else item._create_rule
        return rule is None or rule(context.impl)
    if kind not in ("unique_constraint", "index"):
        return True
    name = item.table.name
    if reflected:
        table = metadata.tables.get(item.table.key)
        return table is None or not any(
            isinstance(other.name, conv) and _parts(other) == _parts(item)
            for other in _named(table)
        )
    connection = context.connection
    if connection is None or not isinstance(item.name, conv):
        return True
    there = inspect(connection).has_table(name)
    return not there or _parts(item) not in _parts_in_database(connection, name)


def _named(table: Table) -> Iterator[UniqueConstraint | Index]:
    yield from table.indexes
    yield from (c for c in table.constraints if isinstance(c, UniqueConstraint))


def _parts(item: UniqueConstraint | Index) -> tuple[object, ...]:
    unique = bool(item.unique) if isinstance(item, Index) else True
    columns = tuple(column.name for column in item.columns)
    return (isinstance(item, Index), unique, columns)


def _parts_in_database(connection: Connection, table: str) -> set[tuple[object, ...]]:
    inspector = inspect(connection)
    uniques = inspector.get_unique_constraints(table)
    indexes = inspector.get_indexes(table)
    return {(False, True, tuple(unique["column_names"])) for unique in uniques} | {
        (True, bool(index["unique"]), tuple(index["column_names"])) for index in indexes
    }


def refuse_clashes(metadata: MetaData, changed: Collection[str]) -> None:
    """Reject names in changed tables that SQLite accepts, but PostgreSQL does not.

    There, tables, indexes, unique constraints and enums share one namespace.
    """
    users: dict[object, dict[object, str]] = defaultdict(dict)
    for table in metadata.tables.values():
        try:
            for name, user in _names(table):
                users[name][user] = table.name
        except IdentifierError as error:
            if table.name in changed:
                raise CommandError(
                    f"{error}; PostgreSQL allows 63 characters at most"
                ) from None
    twice = {
        str(name)
        for name, found in users.items()
        if len(found) > 1 and {*changed} & {*found.values()}
    }
    if twice:
        raise CommandError(
            "the models use a name for two things, which PostgreSQL rejects:"
            f" {', '.join(sorted(twice))}. Rename one of them"
        )


def _names(table: Table) -> Iterator[tuple[object, object]]:
    """Yield each name that must be unique on PostgreSQL, and its owner."""
    yield table.name, table
    for item in (*_named(table), table.primary_key):
        if item.name:
            yield _name(item), item
    for constraint in table.constraints:
        if constraint.name:
            yield f"{_name(constraint)} of {table.name}", constraint
    for enum in enums(table):
        yield enum.name, tuple(enum.enums)


def _name(item: Any) -> str:
    preparer = DIALECTS[1].identifier_preparer
    form = (
        preparer.format_index if isinstance(item, Index) else preparer.format_constraint
    )
    return str(form(item)).strip('"')
