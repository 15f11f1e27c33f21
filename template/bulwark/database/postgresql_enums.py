"""Enums on PostgreSQL, where each is a separate type that migrations must create.

A migration that was written on SQLite does not contain these types. So when it runs,
the types of its columns are created, and the members that a type lacks are added.
"""

from collections.abc import Iterator
from typing import Any, cast

from alembic.ddl.postgresql import PostgresqlImpl
from sqlalchemy import (
    ARRAY,
    Column,
    Connection,
    Enum,
    MetaData,
    Table,
    TypeDecorator,
    inspect,
    literal,
)
from sqlalchemy.dialects.postgresql.base import PGInspector
from sqlalchemy.types import TypeEngine


class EnumAwareImpl(PostgresqlImpl):
    """Creates an enum before the first column that uses it, and only then."""

    __dialect__ = "postgresql"

    def create_table(self, table: Table, **options: Any) -> None:
        """Create the table's enums first, unless an earlier migration did."""
        self._make_enums(table)
        super().create_table(table, **options)

    def add_column(self, table_name: str, column: Column[Any], **options: Any) -> None:
        """Create the column's enum first."""
        self._make_enums(Table("_", MetaData(), Column("_", column.type)))
        super().add_column(table_name, column, **options)

    def alter_column(self, table_name: str, column_name: str, **options: Any) -> None:
        """Convert text to an enum, for which PostgreSQL requires an expression."""
        enum = enum_of(options.get("type_"))
        if enum is not None and enum is options["type_"]:
            self._make_enums(Table("_", MetaData(), Column("_", enum)))
            column = self.dialect.identifier_preparer.quote(column_name)
            using = f"{column}::text::{enum.compile(dialect=self.dialect)}"
            options.setdefault("postgresql_using", using)
        super().alter_column(table_name, column_name, **options)

    def _make_enums(self, table: Table) -> None:
        # SQLAlchemy records in `memo` what it has created, and creates it only once.
        table.dispatch.before_create(
            table, self.connection, checkfirst=True, _ddl_runner=self
        )


def enums(table: Table) -> Iterator[Enum]:
    """Yield the enums of a table that are types on PostgreSQL."""
    found = (enum_of(column.type) for column in table.columns)
    yield from (enum for enum in found if enum is not None and enum.name is not None)


def add_new_members(connection: Connection, metadata: MetaData) -> None:
    """Add the members that the models have and PostgreSQL's types lack."""
    if connection.dialect.name != "postgresql":
        return
    present: dict[tuple[str | None, str | None], list[str]] = {
        (None if known["visible"] else known["schema"], known["name"]): known["labels"]
        for known in cast("PGInspector", inspect(connection)).get_enums("*")
    }
    quote = connection.dialect.identifier_preparer.quote
    for enum in (enum for table in metadata.sorted_tables for enum in enums(table)):
        labels = present.get((enum.schema, enum.name))
        if labels is None:
            continue
        type_name = ".".join(quote(part) for part in (enum.schema, enum.name) if part)
        for place, member in enumerate(enum.enums):
            if member not in labels:
                # In the order of the models, as in a new database.
                where, other = (
                    ("AFTER", enum.enums[place - 1]) if place else ("BEFORE", labels[0])
                )
                connection.exec_driver_sql(
                    f"ALTER TYPE {type_name} ADD VALUE IF NOT EXISTS"
                    f" {_text(member, connection)} {where} {_text(other, connection)}"
                )


def _text(member: str, connection: Connection) -> str:
    return str(
        literal(member).compile(connection, compile_kwargs={"literal_binds": True})
    )


def enum_of(type_: TypeEngine[Any] | None) -> Enum | None:
    """Return the enum that PostgreSQL stores for a type, if it is one."""
    while type_ is not None and not isinstance(type_, Enum):
        if isinstance(type_, TypeDecorator):
            type_ = type_.impl_instance
        elif isinstance(type_, ARRAY):
            type_ = type_.item_type
        else:
            return None
    return type_ if type_ is not None and type_.native_enum else None
