"""Blind indexes: keyed hashes, which find rows by the value of an encrypted column."""

import hmac
from collections.abc import Callable
from typing import Any

from sqlalchemy import Dialect, TypeDecorator
from sqlalchemy.sql import operators

from bulwark.database.encryption import (
    NULL_OPERATORS,
    Encrypted,
    PlacedType,
    is_sql,
    keys_of,
)


class Digest(bytes):
    """A value of a blind index, as it is stored: the id of its key, then the hash."""

    __slots__ = ()


class _ByDigest(TypeDecorator.Comparator[Any]):
    """Compares with the digests of a value under each key, for equality only."""

    def operate(self, op: Any, *other: Any, **options: Any) -> Any:
        if op in NULL_OPERATORS and is_sql(*other):
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


class BlindIndex(PlacedType):
    """A type of columns with keyed hashes of the values of an encrypted column.

    Sessions fill it. Compare it with plain values: `Patient.number_index == "42"`.

    Args:
        source: the name of the encrypted column in the same table.
        normalize: applied to values before they are hashed, such as `str.casefold`.
    """

    cache_ok = True
    comparator_factory = _ByDigest

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
