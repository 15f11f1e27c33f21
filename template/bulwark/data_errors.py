"""Errors of the database that a value of the request caused.

A text that is too long for its column, a number too large, a value of another type, a
null where a column needs a value: the sender reads 400, or 404 where the value is part
of the path. What the request did not bring stays a fault of the service.
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

from bulwark import errors
from bulwark.database import db

# Of PostgreSQL, appendix A of its manual: too long, out of range, not of the type.
UNFIT = frozenset({"22001", "22007", "22008", "22021", "22P02", "22P05"})
OUT_OF_RANGE = "22003"
NOT_NULL = ("23502", sqlite3.SQLITE_CONSTRAINT_NOTNULL)
SMALL = 2**15 - 1  # in range of every type of integer
# What types and drivers raise before the database gets a value.
UNFIT_BEFORE = (AttributeError, LookupError, TypeError, ValueError)


def init_app(app: Flask) -> None:
    """Answer such errors."""
    for kind in (StatementError, OverflowError, UnicodeEncodeError):
        app.register_error_handler(kind, _show)


@event.listens_for(Engine, "handle_error")
def _note(context: ExceptionContext) -> None:
    """Keep with an error what the sender is answered, as only here values are known."""
    if has_request_context():
        raised: Any = context.sqlalchemy_exception or context.original_exception
        raised.answer = _answer_null(context) or _answer(_suspects(context))


def _show(error: Any) -> ResponseReturnValue:
    answer: HTTPException | None = getattr(error, "answer", None)
    if answer is None:
        raise error
    db.session.rollback()
    return errors.show(answer)


def _answer_null(context: ExceptionContext) -> HTTPException | None:
    """Answer a null that the JSON may have brought where a column needs a value."""
    code = _code(context.original_exception)
    # With `is`: a value of a team's own type may compare in its own way.
    if code not in NOT_NULL or all(v is not None for v in _values(context.parameters)):
        return None
    if any(value is None for value in _sent_json()):
        return BadRequest("Send a value in place of null.")
    return None


def _code(error: BaseException) -> str | int | None:
    """Return what PostgreSQL or SQLite calls an error."""
    code: str | int | None = getattr(error, "sqlstate", None)
    return code or getattr(error, "sqlite_errorcode", None)


def _suspects(context: ExceptionContext) -> list[Any]:
    """Return the values of a statement that the error may be about."""
    original = context.original_exception
    values = [v for v in _values(context.parameters) if not isinstance(v, bool | None)]
    code = _code(original)
    if code == OUT_OF_RANGE or isinstance(original, OverflowError):
        return [v for v in values if not isinstance(v, int) or abs(v) > SMALL]
    if code in UNFIT:
        return values
    if isinstance(context.sqlalchemy_exception, InterfaceError | ProgrammingError):
        # No column of this type takes an object or a list.
        return [value for value in values if isinstance(value, dict | list)]
    if isinstance(original, UNFIT_BEFORE):
        return [*values, *_in_hand(original)]
    return []


def _in_hand(error: BaseException) -> Iterator[Any]:
    """Yield what the function that raised was given, as a statement may hide that.

    `select(Note).where(Note.kind == kind)` holds its value itself, not as a parameter.
    """
    *_, (frame, _line) = walk_tb(error.__traceback__)
    for value in frame.f_locals.values():
        if isinstance(value, str | int | float | dict | list):
            yield value


def _answer(suspects: list[Any]) -> HTTPException | None:
    if not suspects:
        return None
    if _has_one_of(suspects, (request.view_args or {}).values()):
        return NotFound()
    if _has_one_of(suspects, _sent()):
        return BadRequest("A value is too long, too large, or of another type.")
    return None


def _values(parameters: Any) -> Iterator[Any]:
    """Yield the values of one statement, or of many at once."""
    rows = parameters if isinstance(parameters, list) else [parameters]
    for row in rows:
        yield from row.values() if isinstance(row, dict) else row or ()


def _sent() -> Iterator[Any]:
    """Yield all values of the query, the form and the JSON."""
    yield from request.args.values()
    form: list[str] = []
    with suppress(HTTPException):  # a body that nobody has read may be refused now
        form += request.form.values()
    yield from form
    yield from _sent_json()


def _sent_json() -> Iterator[Any]:
    """Yield all values inside the JSON, and itself."""
    waiting: list[Any] = []
    with suppress(HTTPException):
        sent = request.get_json(silent=True)
        waiting = [] if sent is None else [sent]
    while waiting:
        value = waiting.pop()
        yield value
        if isinstance(value, dict | list):
            waiting += value.values() if isinstance(value, dict) else value


def _has_one_of(parameters: list[Any], values: Any) -> bool:
    known = {form for value in values for form in _forms(value)}
    return any(known & set(_forms(parameter)) for parameter in parameters)


def _forms(value: Any) -> Iterator[str]:
    """Yield a value as text, and as the number that a view may read from that."""
    text = str(value).strip().casefold()
    yield text
    with suppress(ValueError):
        yield str(int(text))
