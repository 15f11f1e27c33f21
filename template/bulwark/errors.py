"""What a visitor sees when something is wrong: a page or JSON, with the request id."""

import math
import sqlite3
from typing import Any

from flask import Flask, g, jsonify, render_template, request
from flask.typing import ResponseReturnValue
from flask_login import AnonymousUserMixin
from flask_wtf.csrf import CSRFError
from sqlalchemy.exc import OperationalError
from werkzeug.exceptions import (
    HTTPException,
    InternalServerError,
    SecurityError,
    ServiceUnavailable,
)

from bulwark import events

A_FEW_SECONDS = 10
SOON = 5
# sqlite.org/rescode.html: the low byte; what else fails in SQLite is a wrong statement.
SQLITE_PRIMARY_CODE = 0xFF
SQLITE_AWAY = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
}
# What a browser that shows our pages never sends.
UNFIT = (400, 413, 415, 422)
PLAIN = {"Content-Type": "text/plain; charset=utf-8"}
# Plain words for what people meet; other codes show their standard name.
TITLES = {
    400: "That request can't be understood",
    401: "Please sign in",
    403: "You may not do this",
    404: "There is no such page",
    405: "This page does not do that",
    413: "That is too large",
    429: "Too many tries",
    500: "Something went wrong here",
    503: "The service is busy",
}
HINTS = {
    401: "Sign in, then try again.",
    403: "If you should be able to, ask an administrator for the permission.",
    404: "Check the address, or start again at the home page.",
    413: "Send something smaller.",
    429: "Wait a few minutes, then try again.",
    500: "It is not your fault. Try again; if it stays, tell us the number below.",
    503: "Try again in a minute.",
}


def init_app(app: Flask) -> None:
    """Show every error in the service's own style."""
    app.log_exception = _tell_fault  # type: ignore[method-assign]
    app.register_error_handler(HTTPException, show)
    app.register_error_handler(OperationalError, _show_database_error)


def wants_json() -> bool:
    """Tell whether the caller asks for JSON rather than a page, or is a script."""
    if "Authorization" in request.headers:
        return True
    best = request.accept_mimetypes.best_match(["text/html", "application/json"])
    return request.is_json or best == "application/json"


def in_words(seconds: int) -> str:
    """Say how long that is, never less than it is."""
    if seconds <= A_FEW_SECONDS:
        return "a few seconds"
    minutes = math.ceil(seconds / 60)
    return "a minute" if minutes == 1 else f"{minutes} minutes"


def _tell_fault(exc_info: Any) -> None:
    """Log what was raised; Flask's own line has the path, which may hold a token."""
    away = _means_away(exc_info[1])
    events.tell("sys_database_unreachable" if away else "sys_error", exc_info=exc_info)


def _show_database_error(error: OperationalError) -> ResponseReturnValue:
    _tell_fault((type(error), error, error.__traceback__))
    return show(InternalServerError(original_exception=error))


def _means_away(error: BaseException | None) -> bool:
    """Tell whether an error says that the database is away, full or locked."""
    if not isinstance(error, OperationalError):
        return False
    code = getattr(error.orig, "sqlite_errorcode", None)
    return code is None or code & SQLITE_PRIMARY_CODE in SQLITE_AWAY


def show(error: HTTPException) -> ResponseReturnValue:
    """Return the page, or the JSON, of an error."""
    if error.response is not None:
        return error.response
    if _means_away(getattr(error, "original_exception", None)):
        error = ServiceUnavailable(retry_after=SOON)
    if error.code in UNFIT:
        events.tell("input_validation_fail", reason=type(error).__name__)
    if isinstance(error, SecurityError):
        # No page can be made for a host that is not ours: it could not link anywhere.
        return "This service does not answer to that host name.\n", 400, PLAIN
    code = error.code or InternalServerError.code
    title = TITLES.get(code, error.name)
    hint = HINTS.get(code, "")
    if isinstance(error, CSRFError):
        title = "This form is too old"
        hint = "Go back, reload the page and send it again."
    elif error.description != type(error).description:
        hint = error.description or hint
    elif isinstance(wait := getattr(error, "retry_after", None), int):
        hint = f"Try again in {in_words(wait)}."
    headers = [(k, v) for k, v in error.get_headers() if k != "Content-Type"]
    if code >= InternalServerError.code:
        # The page must not ask for the visitor again: the database may be away.
        g._login_user = AnonymousUserMixin()
    if wants_json():
        body = jsonify(error=title, hint=hint, request_id=g.get("request_id"))
        return body, code, headers
    page = render_template("bulwark/error.html", code=code, title=title, hint=hint)
    return page, code, headers
