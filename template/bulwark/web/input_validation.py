"""Validation of requests, before Flask, its extensions or a view read them.

The headers, path and query string are checked first, the body when it is first read. An
invalid request gets 400 with a reason, or 404 for a path that can't exist.
"""

import math
from collections.abc import Mapping
from functools import cached_property
from io import BytesIO
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO, Any, cast
from urllib.parse import unquote_to_bytes, urlsplit

from flask import Flask, Request, abort, current_app, request
from werkzeug.datastructures import Authorization, FileStorage, MultiDict
from werkzeug.exceptions import BadRequest
from werkzeug.formparser import FormDataParser
from werkzeug.http import parse_date

from bulwark.web import body_limits
from bulwark.web.json_body import INTEGERS, UNFIT, StrictJSON, UnfitError

# Enough for every form of the base; views with uploads declare their own `body_limit`.
MAX_BODY = 1024 * 1024
FILENAME = 255  # characters, the limit of most file systems
# How WSGI names headers in its environment.
HEADERS = ("HTTP_", "CONTENT_")
DATES = ("Date", "If-Modified-Since", "If-Range", "If-Unmodified-Since")
FORM = "application/x-www-form-urlencoded"
IN_MEMORY = 500 * 1024  # bytes of a file; the rest waits on the disk
SCRATCH = ".part"  # in the folder of uploads


def init_app(app: Flask) -> None:
    """Limit the body size, parse JSON and forms strictly, and check each request."""
    if app.config["MAX_CONTENT_LENGTH"] is None:
        app.config["MAX_CONTENT_LENGTH"] = MAX_BODY
    app.json_provider_class = StrictJSON
    app.json = StrictJSON(app)
    app.request_class = type("Request", (CheckedRequest, app.request_class), {})
    app.before_request(_check)


def _check() -> None:
    """Check everything except the body, and set the maximum body size."""
    _check_headers(request.environ)
    if "\0" in request.path or not all(map(_may_exist, _path_values())):
        abort(404)
    if query := request.query_string:
        _check_encoded(query)
    if (size := body_limits.limit_of(current_app, request.endpoint)) is not None:
        if request.mimetype == FORM:  # parsing takes fifty times its size in memory
            size = min(size, request.max_content_length or MAX_BODY)
        request.max_content_length = size


def _check_headers(environ: Mapping[str, Any]) -> None:
    if "\0" in "".join(v for k, v in environ.items() if k.startswith(HEADERS)):
        abort(400, "Send headers without NUL.")
    if not environ.get("HTTP_AUTHORIZATION", "").isascii():
        abort(400, "Send Authorization in ASCII.")
    for name in ("Referer", "Origin"):
        if not is_url(environ.get(f"HTTP_{name.upper()}", "")):
            abort(400, f"{name} is not a URL.")
    for name in DATES:
        if not _is_in_range(environ.get(f"HTTP_{name.upper().replace('-', '_')}")):
            abort(400, f"{name} is not a date.")


def _is_in_range(date: str | None) -> bool:
    """Return whether Werkzeug can parse a date; it ignores most that are invalid."""
    try:
        parse_date(date)
    except OverflowError:
        return False
    return True


def is_url(text: str) -> bool:
    """Return whether Python can parse a text as a URL, or as part of one."""
    if not text:
        return True
    try:
        for variant in (text, text.replace("\\", "/")):
            _ = urlsplit(variant).port
    except ValueError:
        return False
    return True


class Forms(FormDataParser):
    """Parses a form, and rejects values that no view expects."""

    def parse(
        self,
        stream: IO[bytes],
        mimetype: str,
        content_length: int | None,
        options: dict[str, str] | None = None,
    ) -> tuple[IO[bytes], MultiDict[str, str], MultiDict[str, FileStorage]]:
        """Return the rest of the stream, the fields and the files."""
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

    def _get_file_stream(
        self,
        total_content_length: int | None,
        content_type: str | None,
        filename: str | None = None,
        content_length: int | None = None,
    ) -> IO[bytes]:
        """Return where a file is kept while its request lasts.

        Large files wait beside the uploads: /tmp is in memory in a container. The file
        has no name there, so that nothing is left behind.
        """
        if body_limits.limit_of(current_app, request.endpoint) is None:
            return super()._get_file_stream(
                total_content_length, content_type, filename, content_length
            )
        folder = Path(current_app.config["UPLOADS_FOLDER"], SCRATCH)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = SpooledTemporaryFile(IN_MEMORY, dir=str(folder))  # noqa: SIM115
        self.received.append(file)
        return cast(IO[bytes], file)

    def close(self) -> None:
        """Close all files, even if the request was refused halfway."""
        super().close()
        for file in self.received:
            file.close()

    @cached_property
    def received(self) -> list[SpooledTemporaryFile[bytes]]:
        """The files that are being received."""
        return []

    @property
    def authorization(self) -> Authorization | None:
        """The parsed header, or None if it is not ASCII, on which Werkzeug fails."""
        value = self.headers.get("Authorization", "")
        return Authorization.from_header(value) if value.isascii() else None

    def on_json_loading_failed(self, e: ValueError | None) -> Any:
        """Respond with 400 and the reason."""
        if isinstance(e, UnfitError):
            raise BadRequest(str(e)) from e
        return super().on_json_loading_failed(e)


def _path_values() -> list[Any]:
    return list((request.view_args or {}).values())


def _may_exist(value: Any) -> bool:
    """Return whether a value in the path could be stored in the database."""
    if isinstance(value, int):
        return value in INTEGERS
    return not isinstance(value, float) or math.isfinite(value)


def _check_encoded(encoded: bytes) -> None:
    """Reject an encoded form or query string that is not valid UTF-8 text."""
    try:
        text = unquote_to_bytes(encoded).decode()
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
        abort(400, f"Use {FILENAME} characters at most for a file name.")
