"""Turns database errors caused by a value in the request into client errors.

Examples are text that is too long for its column, numbers out of range, values of the
wrong type, and null in a required column. The response is 400, or 404 if the value is
part of the path. Errors from any other value remain server errors.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from traceback import walk_tb
from typing import Any

from flask import Flask, has_request_context, request
from flask.typing import ResponseReturnValue
from sqlalchemy import event
from sqlalchemy.engine import Engine, ExceptionContext
from sqlalchemy.exc import InterfaceError, ProgrammingError, StatementError
from werkzeug.exceptions import BadRequest, HTTPException, NotFound

from bulwark.database import db
from bulwark.web import errors

# PostgreSQL error codes (appendix A of its manual): too long, invalid, out of range.
UNFIT = frozenset({"22001", "22007", "22008", "22021", "22P02", "22P05"})
OUT_OF_RANGE = "22003"
NOT_NULL = ("23502", sqlite3.SQLITE_CONSTRAINT_NOTNULL)
LARGE = 2**31  # out of the range of some integer types
SMALL = 2**15 - 1  # within the range of every integer type
# Raised by column types and drivers before the database receives a value.
UNFIT_BEFORE = (AttributeError, LookupError, TypeError, ValueError)


def init_app(app: Flask) -> None:
    """Register the error handlers."""
    for kind in (StatementError, OverflowError, UnicodeEncodeError):
        app.register_error_handler(kind, _show)


@event.listens_for(Engine, "handle_error")
def _attach_client_error(context: ExceptionContext) -> None:
    """Attach the client error to the exception, as the values are known only here."""
    if has_request_context():
        raised: Any = context.sqlalchemy_exception or context.original_exception
        raised.client_error = (
            _null_error(context)
            or _error_of(_suspects(context))
            or _large_number_error(context.original_exception)
        )


def _show(error: Any) -> ResponseReturnValue:
    client_error: HTTPException | None = getattr(error, "client_error", None)
    if client_error is None:
        raise error
    db.session.rollback()
    return errors.show(client_error)


def _null_error(context: ExceptionContext) -> HTTPException | None:
    """Return a client error if a null in the JSON may have violated NOT NULL."""
    code = _code(context.original_exception)
    # With `is`: custom types may override comparison.
    if code not in NOT_NULL or all(v is not None for v in _values(context.parameters)):
        return None
    if any(value is None for value in _json_values()):
        return BadRequest("Send a value instead of null.")
    return None


def _large_number_error(error: BaseException) -> HTTPException | None:
    """Return a client error if a view may have calculated with a large number.

    `db.paginate` calculates an offset from the number of a page.
    """
    if not _is_out_of_range(error):
        return None
    if any(map(_is_large, (request.view_args or {}).values())):
        return NotFound()
    if any(map(_is_large, _request_values())):
        return BadRequest("A number is too large.")
    return None


def _is_out_of_range(error: BaseException) -> bool:
    return _code(error) == OUT_OF_RANGE or isinstance(error, OverflowError)


def _is_large(value: Any) -> bool:
    with suppress(ValueError):
        return abs(int(str(value))) >= LARGE
    return False


def _code(error: BaseException) -> str | int | None:
    """Return the error code of PostgreSQL or SQLite."""
    code: str | int | None = getattr(error, "sqlstate", None)
    return code or getattr(error, "sqlite_errorcode", None)


def _suspects(context: ExceptionContext) -> list[Any]:
    """Return the values of the statement that may have caused the error."""
    original = context.original_exception
    values = [v for v in _values(context.parameters) if not isinstance(v, bool | None)]
    if _is_out_of_range(original):
        return [v for v in values if not isinstance(v, int) or abs(v) > SMALL]
    if _code(original) in UNFIT:
        return values
    if isinstance(context.sqlalchemy_exception, InterfaceError | ProgrammingError):
        # The driver does not accept objects or lists here.
        return [value for value in values if isinstance(value, dict | list)]
    if isinstance(original, UNFIT_BEFORE):
        return [*values, *_locals_of(original)]
    return []


def _locals_of(error: BaseException) -> Iterator[Any]:
    """Yield the local values of the function that raised.

    A statement may not list its values: `select(Note).where(Note.kind == kind)`
    contains the value itself, not a parameter.
    """
    *_, (frame, _line) = walk_tb(error.__traceback__)
    for value in frame.f_locals.values():
        if isinstance(value, str | int | float | dict | list):
            yield value


def _error_of(suspects: list[Any]) -> HTTPException | None:
    if not suspects:
        return None
    if _has_one_of(suspects, (request.view_args or {}).values()):
        return NotFound()
    if _has_one_of(suspects, _request_values()):
        return BadRequest("A value is too long, too large, or of the wrong type.")
    return None


def _values(parameters: Any) -> Iterator[Any]:
    """Yield the parameters of one statement, or of a batch."""
    rows = parameters if isinstance(parameters, list) else [parameters]
    for row in rows:
        yield from row.values() if isinstance(row, dict) else row or ()


def _request_values() -> Iterator[Any]:
    """Yield all values from the query string, the form and the JSON body."""
    yield from request.args.values()
    form: list[str] = []
    with suppress(HTTPException):  # an unread body may be rejected now
        form += request.form.values()
    yield from form
    yield from _json_values()


def _json_values() -> Iterator[Any]:
    """Yield the JSON body and all values inside it."""
    waiting: list[Any] = []
    with suppress(HTTPException):
        body = request.get_json(silent=True)
        waiting = [] if body is None else [body]
    while waiting:
        value = waiting.pop()
        yield value
        if isinstance(value, dict | list):
            waiting += value.values() if isinstance(value, dict) else value


def _has_one_of(parameters: list[Any], values: Any) -> bool:
    known = {form for value in values for form in _forms(value)}
    return any(known & set(_forms(parameter)) for parameter in parameters)


def _forms(value: Any) -> Iterator[str]:
    """Yield a value as text, and as the integer that a view may parse from it."""
    text = str(value).strip().casefold()
    yield text
    with suppress(ValueError):
        yield str(int(text))
