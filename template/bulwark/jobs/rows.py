"""Serialization of jobs to rows: JSON of declared types, signed with the service's key.

Anyone who can write to the database can add a row. So a row is data and never code, and
a row that this service did not sign is rejected.
"""

import base64
import hmac
import json
import math
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from huey.registry import Message
from huey.serializer import Serializer

from bulwark import crypto

FORMAT = b"bulwark1"
KEY_PURPOSE = "bulwark jobs, signature of a row"
ARGUMENTS_LENGTH = 100_000  # characters
PLAIN = (
    "None, bool, int, float, str, bytes, list, tuple, set, dict, date, time, datetime,"
    " timedelta, Decimal and UUID"
)


class RowRefusedError(Exception):
    """This service did not write the row. The message has the reason, but no data."""


class ArgumentError(TypeError):
    """An argument of a job has a type that a row can't contain."""


class SignedJSON(Serializer):  # type: ignore[misc]
    """Stores Huey's data as signed JSON, and reads nothing else."""

    def __init__(self, keys: Mapping[str, bytes] | None = None) -> None:
        """Derive a signing key from each key; the first signs, all verify."""
        super().__init__()
        self._keys = {
            key_id.encode(): crypto.derive(key, KEY_PURPOSE)
            for key_id, key in (keys or {}).items()
        }

    def serialize(self, data: Any) -> bytes:
        """Return the signed row for Huey's data."""
        key = next(iter(self._keys.values()))
        text = json.dumps(_pack(data, "the value"), separators=(",", ":")).encode()
        return self.start + _signature(key, self.start, text) + b":" + text

    def deserialize(self, data: bytes) -> Any:
        """Return the data of a row.

        Raises:
            RowRefusedError: this service did not write it, or its key was removed.
        """
        parts = data.split(b":", 3)
        if parts[0] != FORMAT or len(parts) != 4:  # noqa: PLR2004
            raise RowRefusedError("it is not signed")
        _, key_id, signature, text = parts
        key = self._keys.get(key_id)
        if key is None:
            raise RowRefusedError("the key that signed it is not in use")
        expected = _signature(key, FORMAT + b":" + key_id + b":", text)
        if not hmac.compare_digest(signature, expected):
            raise RowRefusedError("its signature is wrong")
        try:
            return _unpack(json.loads(text))
        except (ValueError, TypeError, KeyError, ArithmeticError, RecursionError):
            raise RowRefusedError("its data can't be read") from None

    @property
    def start(self) -> bytes:
        """The beginning of rows that were signed with the first key."""
        return FORMAT + b":" + next(iter(self._keys)) + b":"


def pack(job: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """Return the arguments of a job as JSON.

    Raises:
        ArgumentError: one is an object, or all of them together are too long.
    """
    message = Message("", job, args=tuple(args), kwargs=dict(kwargs))
    text = json.dumps(_pack(message, "the value"), separators=(",", ":"))
    if len(text) > ARGUMENTS_LENGTH:
        raise ArgumentError(
            f"job {job}: the arguments have {len(text)} characters, and at most"
            f" {ARGUMENTS_LENGTH}. Store the data, and pass the id of its row."
        )
    return text


def unpack(text: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments that `pack` was given."""
    message = _unpack(json.loads(text))
    return message.args, message.kwargs


def _signature(key: bytes, start: bytes, text: bytes) -> bytes:
    return hmac.digest(key, start + text, "sha256").hex().encode()


# --- Types ----------------------------------------------------------------------------
# A type that JSON lacks is an object with one key, which begins with "$".

_PACK: dict[type, tuple[str, Callable[[Any], Any]]] = {
    bytes: ("$bytes", lambda value: base64.b64encode(value).decode()),
    datetime: ("$datetime", datetime.isoformat),
    date: ("$date", date.isoformat),
    time: ("$time", time.isoformat),
    timedelta: ("$timedelta", lambda v: [v.days, v.seconds, v.microseconds]),
    Decimal: ("$decimal", str),
    uuid.UUID: ("$uuid", str),
}
_UNPACK: dict[str, Callable[[Any], Any]] = {
    "$bytes": lambda text: base64.b64decode(text, validate=True),
    "$datetime": datetime.fromisoformat,
    "$date": date.fromisoformat,
    "$time": time.fromisoformat,
    "$timedelta": lambda parts: timedelta(*parts),
    "$decimal": Decimal,
    "$uuid": uuid.UUID,
    "$float": float,
    "$tuple": lambda items: tuple(map(_unpack, items)),
    "$set": lambda items: set(map(_unpack, items)),
    "$frozenset": lambda items: frozenset(map(_unpack, items)),
    "$dict": lambda pairs: {_unpack(key): _unpack(value) for key, value in pairs},
    "$message": lambda fields: Message(
        **{name: _unpack(value) for name, value in fields.items()}
    ),
}
_MANY: dict[type, str] = {tuple: "$tuple", set: "$set", frozenset: "$frozenset"}


def _pack(value: Any, where: str) -> Any:
    """Return a value in types of JSON; `where` names it in an error."""
    kind = type(value)
    if kind is float and not math.isfinite(value):
        return {"$float": str(value)}
    if value is None or kind in (bool, int, float, str):
        return value
    if kind is Message:
        return {"$message": _pack_message(value)}
    if kind is list:
        return [_pack(item, f"an item of {where}") for item in value]
    if kind in _MANY:
        return {_MANY[kind]: [_pack(item, f"an item of {where}") for item in value]}
    if kind is dict:
        return _pack_dict(value, where)
    if kind not in _PACK:
        raise ArgumentError(
            f"{where} is of the type {kind.__qualname__}, which the queue can't store."
            f" Pass {PLAIN};"
            " for a row of the database, pass its id."
        )
    name, text = _PACK[kind]
    return {name: text(value)}


def _pack_dict(value: dict[Any, Any], where: str) -> Any:
    inside = f"an item of {where}"
    if all(type(key) is str and not key.startswith("$") for key in value):
        return {key: _pack(item, inside) for key, item in value.items()}
    pairs = [[_pack(key, inside), _pack(item, inside)] for key, item in value.items()]
    return {"$dict": pairs}


def _pack_message(message: Message) -> dict[str, Any]:
    """Return a job with its arguments, which errors refer to by name."""
    job = f"job {str(message.name).rpartition('.')[2]}: argument"
    args = [
        _pack(item, f"{job} {number}") for number, item in enumerate(message.args, 1)
    ]
    kwargs = {
        name: _pack(item, f"{job} {name}") for name, item in message.kwargs.items()
    }
    rest = message._asdict()
    return {
        name: _pack(field, f"{name} of the job")
        for name, field in rest.items()
        if name not in ("args", "kwargs")
    } | {"args": {"$tuple": args}, "kwargs": kwargs}


def _unpack(value: Any) -> Any:
    if isinstance(value, list):
        return [_unpack(item) for item in value]
    if not isinstance(value, dict):
        return value
    name = next(iter(value), "")
    if name.startswith("$"):
        (packed,) = value.values()
        return _UNPACK[name](packed)
    return {key: _unpack(item) for key, item in value.items()}
