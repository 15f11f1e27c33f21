"""Encrypted columns: AES-256-GCM, bound to the table, the column and the row.

`Encrypted(String(200))` is the type of a column whose values the database never has in
plain text. `BlindIndex("column")` is the type of a second column, which finds rows by
the value of the first. `row_binding` encrypts when a session is flushed, because only
then is the primary key known; a SELECT returns each value together with the primary
key of its row, so that a value that was moved or copied is rejected.
"""

import hmac
from collections.abc import Callable, Iterable
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


class Digest(bytes):
    """A value of a blind index, as it is stored: the id of its key, then the hash."""

    __slots__ = ()


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


def _is_sql(other: Any) -> bool:
    """Return whether it is NULL, or a column: SQLAlchemy itself compares columns."""
    return other is None or isinstance(other, ClauseElement)


class _NotComparable(TypeDecorator.Comparator[Any]):
    """Allows only `is None` and `is not None`: each ciphertext is different."""

    def operate(self, op: Any, *other: Any, **options: Any) -> Any:
        if op in NULL_OPERATORS and _is_sql(*other):
            return super().operate(op, *other, **options)
        raise TypeError(
            f"{self.expr} is encrypted, so the database can't compare or sort it."
            " To find equal values, add a BlindIndex (docs/data.md)"
        )


class Encrypted(TypeDecorator[Any]):
    """A type of columns that encrypts values of another type.

    Args:
        kind: the type of the values, such as `String(200)`, `Integer()` or `JSON()`.
        place: `table.column` as it was before a migration renamed the table or the
            column; the values stay bound to it.
    """

    impl = LargeBinary
    cache_ok = True
    comparator_factory = _NotComparable
    column: Column[Any] | None = None

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


class _ByDigest(TypeDecorator.Comparator[Any]):
    """Compares with the digests of a value under each key, for equality only."""

    def operate(self, op: Any, *other: Any, **options: Any) -> Any:
        if op in NULL_OPERATORS and _is_sql(*other):
            return super().operate(op, *other, **options)
        (value,) = other or (None,)
        kind: Any = self.expr.type
        many = op in (operators.in_op, operators.not_in_op)
        if not many and op not in (operators.eq, operators.ne):
            raise TypeError(f"{self.expr} is a blind index, which can only find equals")
        found = [
            digest for one in (value if many else [value]) for digest in kind.all(one)
        ]
        if len(found) == 1 and not many:
            return super().operate(op, found[0], **options)
        of_list = (
            operators.in_op
            if op in (operators.eq, operators.in_op)
            else operators.not_in_op
        )
        return super().operate(of_list, found, **options)


class BlindIndex(TypeDecorator[Any]):
    """A type of columns with keyed hashes of the values of an encrypted column.

    Sessions fill it. Compare it with plain values: `Patient.number_index == "42"`.

    Args:
        source: the name of the encrypted column in the same table.
        normalize: applied to values before they are hashed, such as `str.casefold`.
    """

    impl = LargeBinary
    cache_ok = True
    comparator_factory = _ByDigest
    column: Column[Any] | None = None
    place = ""

    def __init__(
        self, source: str, *, normalize: Callable[[Any], Any] | None = None
    ) -> None:
        super().__init__()
        self.source = source
        self.normalize = normalize

    def all(self, value: Any) -> list[Digest]:
        """Return the digests of a value under each key, the newest key's first."""
        if isinstance(value, Digest):
            return [value]
        plain = self.normalize(value) if self.normalize else value
        encoded = self.source_type.codec.encode(plain)
        return [
            Digest(f"{key_id}:".encode() + hmac.digest(key, encoded, "sha256"))
            for key_id, key in keys_of(f"blind index {self.place}").items()
        ]

    def process_bind_param(self, value: Any, dialect: Dialect) -> bytes | None:
        """Hash a plain value with the newest key."""
        return None if value is None else bytes(self.all(value)[0])

    def process_result_value(
        self, value: bytes | None, dialect: Dialect
    ) -> Digest | None:
        """Return the stored digest."""
        return None if value is None else Digest(value)

    @property
    def source_type(self) -> Encrypted:
        """The type of the encrypted column.

        Raises:
            TypeError: there is no such column.
        """
        column = (
            self.column.table.columns.get(self.source)
            if self.column is not None
            else None
        )
        if column is None or not isinstance(column.type, Encrypted):
            raise TypeError(f"BlindIndex({self.source!r}) names no encrypted column")
        return column.type


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
        if isinstance(column.type, Encrypted | BlindIndex)
    ]


@cache
def _derive(key: bytes, purpose: str) -> bytes:
    return crypto.derive(key, f"bulwark column {purpose}")


@event.listens_for(Column, "after_parent_attach")
def _attach(column: Column[Any], table: Any) -> None:
    """Give each column a type of its own that knows the column."""
    if not isinstance(column.type, Encrypted | BlindIndex):
        return
    if column.type.column is not None:  # one type object for two columns
        earlier = column.type.column
        column.type = kind = column.type.copy()
        if kind.place == f"{earlier.table.name}.{earlier.name}":
            kind.place = ""
    column.type.column = column
    column.type.place = column.type.place or f"{table.name}.{column.name}"
    column.info.setdefault("data", "secret")  # so the log redacts fields of its name
