"""What a request may hold, checked before stock code or a view reads it.

The headers, the path and the query are checked at once, a body when it is first read.
What fails is answered with 400 and a reason, an address that can't exist with 404.

@blueprint.post("/photos")
@signed_in
@body_limit(12_000_000)
def add_photo(): ...
"""

import json
import math
import re
from collections.abc import Callable
from io import BytesIO
from types import NoneType, UnionType
from typing import IO, Any, NoReturn, TypeVar, get_args
from urllib.parse import unquote_to_bytes, urlsplit

from flask import Flask, Request, abort, current_app, request
from flask.json.provider import DefaultJSONProvider
from werkzeug.datastructures import Authorization, FileStorage, MultiDict
from werkzeug.exceptions import BadRequest
from werkzeug.formparser import FormDataParser

View = TypeVar("View", bound=Callable[..., Any])

# Holds every form of the base; a view that takes files declares its own `body_limit`.
MAX_BODY = 1024 * 1024
FILENAME = 255  # characters, as many as file systems take
DEPTH = 100  # lists and objects inside each other
INTEGERS = range(-(2**63), 2**63)  # as databases store them
DIGITS = len(str(INTEGERS.start))
FORM = "application/x-www-form-urlencoded"
# Neither has a place in UTF-8 text that a database stores.
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


class UnfitError(ValueError):
    """A value that no request may hold; its text tells the sender what to change."""


class StrictJSON(DefaultJSONProvider):
    """Refuses what RFC 8259 does not know, and values that databases can't store."""

    def loads(self, s: str | bytes, **kwargs: Any) -> Any:
        """Read JSON; anything else is a `ValueError`, which is answered with 400."""
        strict = {
            "parse_constant": _refuse,
            "parse_int": _integer,
            "parse_float": _number,
        }
        try:
            read = json.loads(s, **strict | kwargs)
        except RecursionError as error:
            raise UnfitError("Nest fewer lists and objects.") from error
        _check_json(read)
        return read


class Forms(FormDataParser):
    """Reads a form, and refuses what no view expects in one."""

    def parse(
        self,
        stream: IO[bytes],
        mimetype: str,
        content_length: int | None,
        options: dict[str, str] | None = None,
    ) -> tuple[IO[bytes], MultiDict[str, str], MultiDict[str, FileStorage]]:
        """Return what is left of the stream, the fields and the files."""
        if mimetype == FORM:
            body = stream.read()
            _check_encoded(body)
            stream = BytesIO(body)
        rest, fields, files = super().parse(stream, mimetype, content_length, options)
        try:
            for name, value in fields.items(multi=True):
                _check_field(name, value)
            for name, file in files.items(multi=True):
                _check_file(name, file.filename or "")
        except BadRequest:
            for file in files.values():
                file.close()
            raise
        return rest, fields, files


class CheckedRequest(Request):
    """A request whose body is checked when it is read."""

    form_data_parser_class = Forms

    @property
    def authorization(self) -> Authorization | None:
        """What the header says, if it is text at all; Werkzeug fails at other bytes."""
        sent = self.headers.get("Authorization", "")
        return Authorization.from_header(sent) if sent.isascii() else None

    def on_json_loading_failed(self, e: ValueError | None) -> Any:
        """Say what is wrong with the JSON."""
        if isinstance(e, UnfitError):
            raise BadRequest(str(e)) from e
        return super().on_json_loading_failed(e)


def body_limit(size: int) -> Callable[[View], View]:
    """Let this view take a body of as many bytes, as one with files needs.

    The proxy has a limit of its own, see docs/extend.md.
    """

    def declare(view: View) -> View:
        view.body_limit = size  # type: ignore[attr-defined]
        return view

    return declare


def json_object(**types: type | UnionType) -> dict[str, Any]:
    """Return the fields of the JSON object that was sent; another shape is a 400.

    Args:
        types: each field with its type, as `number=str, cents=int, note=str | None`.
            One that may be `None` may also be left out. Other fields are ignored.
    """
    sent = request.get_json()
    if not isinstance(sent, dict):
        abort(400, "Send a JSON object.")
    for name, kind in types.items():
        kinds = get_args(kind) or (kind,)
        if not _is_one_of(kinds, sent.get(name)):
            abort(400, f"Send {name} as {' or '.join(JSON_TYPES[k] for k in kinds)}.")
    return {name: sent.get(name) for name in types}


def init_app(app: Flask) -> None:
    """Bound the body, read JSON and forms strictly, check the rest of a request."""
    if app.config["MAX_CONTENT_LENGTH"] is None:
        app.config["MAX_CONTENT_LENGTH"] = MAX_BODY
    app.json_provider_class = StrictJSON
    app.json = StrictJSON(app)
    app.request_class = type("Request", (CheckedRequest, app.request_class), {})
    app.before_request(_check)


def _check() -> None:
    """Check all but the body, and say how long that may be."""
    if any("\0" in value for _, value in request.headers):
        abort(400, "Send headers without NUL.")
    if not request.headers.get("Authorization", "").isascii():
        abort(400, "Send Authorization in ASCII.")
    for name in ("Referer", "Origin"):
        if not is_url(request.headers.get(name, "")):
            abort(400, f"{name} is not a URL.")
    if "\0" in request.path or not all(map(_may_exist, _path_values())):
        abort(404)
    _check_encoded(request.query_string)
    view = current_app.view_functions.get(request.endpoint or "")
    if (size := getattr(view, "body_limit", None)) is not None:
        request.max_content_length = size


def is_url(text: str) -> bool:
    """Tell whether Python takes a text for a URL, or a part of one."""
    try:
        for variant in (text, text.replace("\\", "/")):
            _ = urlsplit(variant).port
    except ValueError:
        return False
    return True


def _is_one_of(kinds: tuple[Any, ...], value: Any) -> bool:
    if isinstance(value, bool):  # to Python an `int` as well
        return bool in kinds
    return isinstance(value, kinds) or (isinstance(value, int) and float in kinds)


def _path_values() -> list[Any]:
    return list((request.view_args or {}).values())


def _may_exist(value: Any) -> bool:
    """Tell whether a value of the path can be one that is stored."""
    if isinstance(value, int):
        return value in INTEGERS
    return not isinstance(value, float) or math.isfinite(value)


def _check_encoded(sent: bytes) -> None:
    """Refuse an encoded form or query that holds no text."""
    try:
        text = unquote_to_bytes(sent).decode()
    except UnicodeDecodeError:
        abort(400, "Send text in UTF-8.")
    if "\0" in text:
        abort(400, "Send text without NUL.")


def _check_field(name: str | None, value: str) -> None:
    if name is None:
        abort(400, "Give each field a name.")
    if UNFIT.search(name) or UNFIT.search(value):
        abort(400, "Send text without NUL.")


def _check_file(name: str | None, filename: str) -> None:
    _check_field(name, filename)
    if len(filename) > FILENAME:
        abort(400, f"Use {FILENAME} characters at most for the name of a file.")


def _check_json(read: Any) -> None:
    """Look at each text and at the depth, one level after the other."""
    level = [read]
    for _ in range(DEPTH + 1):
        inner: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                inner += value
                inner += value.values()
            elif isinstance(value, list):
                inner += value
            elif isinstance(value, str) and UNFIT.search(value):
                raise UnfitError("Send text without NUL and without lone surrogates.")
        if not inner:
            return
        level = inner
    raise UnfitError("Nest fewer lists and objects.")


def _refuse(constant: str) -> NoReturn:
    raise UnfitError(f"{constant} is not JSON.")


def _integer(digits: str) -> int:
    if len(digits) > DIGITS or int(digits) not in INTEGERS:
        raise UnfitError("Send integers of 64 bits at most.")
    return int(digits)


def _number(digits: str) -> float:
    if math.isinf(number := float(digits)):
        raise UnfitError("Send numbers that are not infinite.")
    return number
