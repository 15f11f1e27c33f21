"""JSON bodies: strictly RFC 8259, with values that databases can store."""

import json
import math
import re
from types import NoneType, UnionType
from typing import Any, NoReturn, get_args

from flask import abort, request
from flask.json.provider import DefaultJSONProvider

DEPTH = 100  # nested lists and objects
INTEGERS = range(-(2**63), 2**63)  # the range of a database BIGINT
DIGITS = len(str(INTEGERS.start))
# NUL and lone surrogates, which databases can't store as UTF-8 text.
UNFIT = re.compile("[\0\ud800-\udfff]")
JSON_TYPES = {
    str: "text",
    int: "an integer",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "an object",
    NoneType: "null",
}


def json_object(**types: type | UnionType) -> dict[str, Any]:
    """Return the fields of the JSON object in the request, or respond with 400.

    Args:
        types: each field with its type: `number=str, cents=int, note=str | None`.
            A field that may be `None` is optional. Other fields are ignored.
    """
    body = request.get_json()
    if not isinstance(body, dict):
        abort(400, "Send a JSON object.")
    for name, kind in types.items():
        kinds = get_args(kind) or (kind,)
        if not _is_one_of(kinds, body.get(name)):
            abort(400, f"Send {name} as {' or '.join(JSON_TYPES[k] for k in kinds)}.")
    return {name: body.get(name) for name in types}


class UnfitError(ValueError):
    """An invalid value in a request; the message is shown to the client."""


class StrictJSON(DefaultJSONProvider):
    """Rejects JSON that RFC 8259 forbids, and values that databases can't store."""

    def loads(self, s: str | bytes, **kwargs: Any) -> Any:
        """Parse JSON; raise a `ValueError`, which becomes a 400, if it is invalid."""
        strict = {
            "parse_constant": _reject_constant,
            "parse_int": _integer,
            "parse_float": _number,
        }
        try:
            value = json.loads(s, **strict | kwargs)
        except RecursionError as error:
            raise UnfitError("Nest fewer lists and objects.") from error
        _check_json(value)
        return value


def _is_one_of(kinds: tuple[Any, ...], value: Any) -> bool:
    if isinstance(value, bool):  # in Python, a bool is an int too
        return bool in kinds
    return isinstance(value, kinds) or (isinstance(value, int) and float in kinds)


def _check_json(value: Any) -> None:
    """Check each text, and the depth, level by level."""
    level = [value]
    for _ in range(DEPTH + 1):
        inner: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                inner += item
                inner += item.values()
            elif isinstance(item, list):
                inner += item
            elif isinstance(item, str) and UNFIT.search(item):
                raise UnfitError("Send text without NUL and without lone surrogates.")
        if not inner:
            return
        level = inner
    raise UnfitError("Nest fewer lists and objects.")


def _reject_constant(constant: str) -> NoReturn:
    raise UnfitError(f"{constant} is not JSON.")


def _integer(digits: str) -> int:
    if len(digits) > DIGITS or int(digits) not in INTEGERS:
        raise UnfitError("Send integers of 64 bits at most.")
    return int(digits)


def _number(digits: str) -> float:
    if math.isinf(number := float(digits)):
        raise UnfitError("Don't send infinite numbers.")
    return number
