"""Encrypted columns: AES-256-GCM, bound to the table, the column and the row.

`Encrypted(String(200))` is the type of a column whose values the database never has in
plain text; `blind_index` finds rows by such a value. `row_binding` encrypts when a
session is flushed, because the primary key is known only then. A SELECT returns each
value together with the primary key of its row, so that a value that was moved or copied
is rejected.
"""

from collections.abc import Iterable
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import (
    Column,
    ColumnElement,
    Dialect,
    LargeBinary,
    String,
    Table,
    TypeDecorator,
    cast,
    event,
    literal,
    type_coerce,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import operators
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import ClauseElement, Label
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeEngine

from bulwark import crypto, settings
from bulwark.database import codecs

NULL_OPERATORS = (operators.is_, operators.is_not, operators.eq, operators.ne)


class Bound(NamedTuple):
    """A value with the primary key of its row; None reserves the place in a new row."""

    value: Any
    row: str | None

    def __repr__(self) -> str:
        return "Bound(…)"


class _Hex(FunctionElement[str]):
    """Binary data as hexadecimal digits."""

    type = String()
    inherit_cache = True


@compiles(_Hex)
def _hex(element: _Hex, compiler: SQLCompiler, **options: Any) -> str:
    # SQLite's hex(NULL) is an empty text.
    data = compiler.process(element.clauses, **options)
    return f"(CASE WHEN {data} IS NOT NULL THEN hex({data}) END)"


@compiles(_Hex, "postgresql")
def _hex_of_postgresql(element: _Hex, compiler: SQLCompiler, **options: Any) -> str:
    return f"encode({compiler.process(element.clauses, **options)}, 'hex')"


def is_sql(other: Any) -> bool:
    """Return whether it is NULL or SQL: SQLAlchemy itself compares two columns."""
    return other is None or isinstance(other, ClauseElement)


class _NotComparable(TypeDecorator.Comparator[Any]):
    """Allows only `is None` and `is not None`: each ciphertext is different."""

    def operate(self, op: Any, *other: Any, **options: Any) -> Any:
        if op in NULL_OPERATORS and is_sql(*other):
            return super().operate(op, *other, **options)
        raise TypeError(
            f"{self.expr} is encrypted, so the database can't compare or sort it."
            " To find equal values, add a BlindIndex (docs/data.md)"
        )


class PlacedType(TypeDecorator[Any]):
    """A type that belongs to one column.

    Attributes:
        column: the column, once its table is known.
        place: the table and the column that the values are bound to.
    """

    impl = LargeBinary
    cache_ok = True
    column: Column[Any] | None = None
    place = ""


class Encrypted(PlacedType):
    """A type of columns that encrypts values of another type.

    Args:
        kind: the type of the values, such as `String(200)`, `Integer()` or `JSON()`.
        place: `table.column` as it was before a migration renamed the table or the
            column; the values stay bound to it.
    """

    cache_ok = True
    comparator_factory = _NotComparable

    def __init__(
        self, kind: TypeEngine[Any] | type[TypeEngine[Any]], *, place: str = ""
    ) -> None:
        super().__init__()
        self.kind = kind() if isinstance(kind, type) else kind
        self.place = place
        self.codec = codecs.codec_of(self.kind)

    def process_bind_param(self, value: Any, dialect: Dialect) -> bytes | None:
        """Encrypt a value that `row_binding` prepared.

        Raises:
            TypeError: the statement was not created by an object in a session, so the
                row of the value is unknown; or the value has another type.
            ValueError: the value is too long.
        """
        if value is None:
            return None
        if not isinstance(value, Bound):
            raise TypeError(
                f"{self.place} is encrypted: set the attribute of an object and commit;"
                " insert(), update() and bulk operations don't know the row"
            )
        encoded = self.codec.encode(value.value)
        return self.seal(encoded, value.row) if value.row else b""

    def seal(self, encoded: bytes, row: str) -> bytes:
        """Encrypt an encoded value for a row."""
        return crypto.encrypt(encoded, keys=keys_of(self.place), place=self._at(row))

    def unseal(self, sealed: bytes, row: str) -> bytes:
        """Decrypt a value of a row, still encoded.

        Raises:
            crypto.DecryptionError: it was changed or belongs elsewhere.
        """
        return crypto.decrypt(sealed, keys=keys_of(self.place), place=self._at(row))

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        """Reject a value that was selected without its row."""
        if value is not None:
            raise TypeError(f"{self.place} was read without its row: {self._remedy}")

    def column_expression(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        """Return what a SELECT asks for: `primary key:value`, the latter as digits."""
        element = column.element if isinstance(column, Label) else column
        table = getattr(element, "table", None)
        key = None if table is None else table.corresponding_column(self.row_key)
        if key is None:
            raise TypeError(f"{column} is read without its row: {self._remedy}")
        stored = type_coerce(element, LargeBinary)
        row = cast(key, String) + literal(":", String, literal_execute=True)
        return type_coerce(row + _Hex(stored), _WithRow(self))

    @property
    def row_key(self) -> Column[Any]:
        """The primary key of the column's table.

        Raises:
            TypeError: it has several columns, or a type without a fixed text.
        """
        if self.column is None:
            raise TypeError("an Encrypted type needs a column of a table")
        keys = list(self.column.table.primary_key)
        if len(keys) != 1 or keys[0].type.python_type not in codecs.ROW_KEYS:
            raise TypeError(
                f"{self.place} is encrypted, so its table needs a primary key of one"
                " column: a number, a text or a UUID"
            )
        key: Column[Any] = keys[0]
        return key

    def _at(self, row: str) -> str:
        return f"{self.place}:{row}"

    @property
    def _remedy(self) -> str:
        return "select the column itself, together with the primary key in a subquery"


class _WithRow(TypeDecorator[Any]):
    """Decrypts `primary key:value`."""

    impl = String
    cache_ok = True

    def __init__(self, owner: Encrypted) -> None:
        super().__init__()
        self.owner = owner

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        if value is None:
            return None
        row, _, digits = value.rpartition(":")
        row = codecs.row_text(self.owner.row_key, row)
        encoded = self.owner.unseal(bytes.fromhex(digits), row)
        return self.owner.codec.decode(encoded)


def keys_of(purpose: str) -> dict[str, bytes]:
    """Return the keys for one purpose, derived from the encryption keys."""
    keys = settings.current().encryption_keys
    return {key_id: _derive(key, purpose) for key_id, key in keys.items()}


def encrypted_columns(tables: Iterable[Table]) -> list[Column[Any]]:
    """Return the columns with encrypted values, or digests of them."""
    return [
        column
        for table in tables
        for column in table.columns
        if isinstance(column.type, PlacedType)
    ]


@cache
def _derive(key: bytes, purpose: str) -> bytes:
    return crypto.derive(key, f"bulwark column {purpose}")


@event.listens_for(Column, "after_parent_attach")
def _attach(column: Column[Any], table: Any) -> None:
    """Give each column a type of its own that knows the column."""
    if not isinstance(column.type, PlacedType):
        return
    if column.type.column is not None:  # one type object for two columns
        earlier = column.type.column
        column.type = kind = column.type.copy()
        if kind.place == f"{earlier.table.name}.{earlier.name}":
            kind.place = ""
    column.type.column = column
    column.type.place = column.type.place or f"{table.name}.{column.name}"
    column.info.setdefault("data", "secret")  # so the log redacts fields of its name
