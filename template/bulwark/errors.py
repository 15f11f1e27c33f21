"""What a visitor sees when something is wrong: a page or JSON, with the request id."""

import math
from typing import Any

from flask import Flask, Request, g, jsonify, render_template, request
from flask.typing import ResponseReturnValue
from flask_login import AnonymousUserMixin
from flask_wtf.csrf import CSRFError
from werkzeug.exceptions import (
    HTTPException,
    InternalServerError,
    SecurityError,
    ServiceUnavailable,
)

from bulwark import events, request_log
from bulwark.logging import log
from bulwark.origins import OriginError
from bulwark.outages import is_outage, roll_back

A_FEW_SECONDS = 10
SOON = 5
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
    app.register_error_handler(HTTPException, show)


def wants_json() -> bool:
    """Tell whether the caller asks for JSON rather than a page, or is a script."""
    return prefers_json(request)


def prefers_json(sent: Request) -> bool:
    """Tell the same of a request that is not the current one any more."""
    if "Authorization" in sent.headers:
        return True
    best = sent.accept_mimetypes.best_match(["text/html", "application/json"])
    return sent.is_json or best == "application/json"


def in_words(seconds: int) -> str:
    """Say how long that is, never less than it is."""
    if seconds <= A_FEW_SECONDS:
        return "a few seconds"
    minutes = math.ceil(seconds / 60)
    return "a minute" if minutes == 1 else f"{minutes} minutes"


def tell_fault(error: BaseException, **details: Any) -> None:
    """End the transaction, then log and count what was raised.

    What is raised while a fault is answered is a line only: each request has one event.
    """
    roll_back()
    if "database_away" in g:
        log.error("error_page_failed", exc_info=error)
        return
    g.database_away = is_outage(error)
    name = "sys_database_unreachable" if g.database_away else "sys_error"
    events.tell(name, exc_info=error, **details)


def show(error: HTTPException) -> ResponseReturnValue:
    """Return the page, or the JSON, of an error."""
    if error.response is not None:
        return error.response
    if isinstance(error, InternalServerError) and not error.original_exception:
        tell_fault(error)
    if g.get("database_away"):
        error = ServiceUnavailable(retry_after=SOON)
    if error.code in UNFIT:
        events.tell("input_validation_fail", reason=type(error).__name__)
    if isinstance(error, SecurityError):
        # No page can be made for a host that is not ours: it could not link anywhere.
        return "This service does not answer to that host name.\n", 400, PLAIN
    code = error.code or InternalServerError.code
    title, hint = _words_for(error, code)
    headers = [(k, v) for k, v in error.get_headers() if k != "Content-Type"]
    if code >= InternalServerError.code:
        # The page must not ask for the visitor again: the database may be away.
        roll_back()
        g._login_user = AnonymousUserMixin()
    if wants_json():
        body = jsonify(error=title, hint=hint, request_id=request_log.current_id())
        return body, code, headers
    page = render_template("bulwark/error.html", code=code, title=title, hint=hint)
    return page, code, headers


def _words_for(error: HTTPException, code: int) -> tuple[str, str]:
    """Return what the page of an error is called, and what it advises."""
    title, hint = TITLES.get(code, error.name), HINTS.get(code, "")
    if isinstance(error, OriginError):
        return error.title, error.description or hint
    if isinstance(error, CSRFError):
        return "This form is too old", "Go back, reload the page and send it again."
    if error.description != type(error).description:
        return title, error.description or hint
    if isinstance(wait := getattr(error, "retry_after", None), int):
        return title, f"Try again in {in_words(wait)}."
    return title, hint
