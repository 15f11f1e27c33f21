"""Conversion of values to bytes, for columns whose values are encrypted."""

import json
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import JSON, Column, TypeDecorator
from sqlalchemy.types import TypeEngine

ROW_KEYS = (int, str, UUID)  # types of primary keys whose text is fixed


class Codec(NamedTuple):
    """How the values of a column become bytes, and the limit of their length."""

    types: tuple[type, ...]
    to_bytes: Callable[[Any], bytes]
    from_bytes: Callable[[bytes], Any]
    length: int | None = None  # characters or bytes

    def encode(self, value: Any) -> bytes:
        """Return a value as bytes.

        Raises:
            TypeError: it has another type.
            ValueError: it is too long, or a time without a time zone.
        """
        # bool is a subclass of int, and datetime of date.
        exact = type(value) in (bool, datetime)
        if not isinstance(value, self.types) or (
            exact and type(value) not in self.types
        ):
            raise TypeError(f"the column does not accept {type(value).__name__}")
        if isinstance(value, str | bytes) and len(value) > (self.length or sys.maxsize):
            raise ValueError(f"the column accepts at most {self.length} characters")
        return self.to_bytes(value)

    def decode(self, encoded: bytes) -> Any:
        """Return the value that was encoded."""
        return self.from_bytes(encoded)


def _time(value: datetime) -> bytes:
    if value.tzinfo is None:
        raise ValueError("a time needs a time zone; use utcnow()")
    return value.astimezone(UTC).isoformat().encode()


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


CODECS: dict[type, Codec] = {
    str: Codec((str,), str.encode, bytes.decode),
    bytes: Codec((bytes,), bytes, bytes),
    bool: Codec((bool,), lambda v: b"1" if v else b"0", lambda b: b == b"1"),
    int: Codec((int,), lambda v: str(v).encode(), int),
    float: Codec((float, int), lambda v: repr(float(v)).encode(), float),
    Decimal: Codec(
        (Decimal, int), lambda v: str(v).encode(), lambda b: Decimal(b.decode())
    ),
    date: Codec(
        (date,),
        lambda v: v.isoformat().encode(),
        lambda b: date.fromisoformat(b.decode()),
    ),
    datetime: Codec((datetime,), _time, lambda b: datetime.fromisoformat(b.decode())),
    UUID: Codec((UUID,), lambda v: v.bytes, lambda b: UUID(bytes=b)),
    dict: Codec((dict, list), _json, json.loads),
}


def codec_of(kind: TypeEngine[Any]) -> Codec:
    """Return the codec for the values of a type.

    Raises:
        TypeError: values of the type can't be encrypted.
    """
    plain = kind.impl_instance if isinstance(kind, TypeDecorator) else kind
    try:
        codec = CODECS[dict if isinstance(plain, JSON) else plain.python_type]
    except (KeyError, NotImplementedError):
        raise TypeError(
            f"{kind!r} can't be encrypted: use String, Text, LargeBinary, Boolean,"
            " Integer, Float, Numeric, Date, UTCDateTime, Uuid or JSON"
        ) from None
    length = getattr(plain, "length", None)
    return codec._replace(length=length)


def row_text(key: Column[Any], text: str) -> str:
    """Return the text of a primary key, which must not depend on the database."""
    return str(UUID(text)) if key.type.python_type is UUID else text
