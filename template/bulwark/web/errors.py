"""Error responses: a page or JSON, with the request id."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from flask import (
    Flask,
    Request,
    current_app,
    g,
    jsonify,
    render_template,
    request,
    url_for,
)
from flask.typing import ResponseReturnValue
from flask_login import AnonymousUserMixin
from flask_wtf.csrf import CSRFError
from werkzeug.exceptions import (
    HTTPException,
    InternalServerError,
    SecurityError,
    ServiceUnavailable,
)

from bulwark.audit import events
from bulwark.database.outages import is_outage, roll_back
from bulwark.observability import request_log
from bulwark.observability.logging import log
from bulwark.web import problems
from bulwark.web.origins import OriginError

A_FEW_SECONDS = 10
SOON = 5
# A browser that uses our pages never causes these.
UNFIT = (400, 413, 415, 422)
PLAIN = {"Content-Type": "text/plain; charset=utf-8"}
# Titles of common errors; other codes show their standard name.
TITLES = {
    400: "Invalid request",
    401: "Please sign in",
    403: "You don't have permission",
    404: "Page not found",
    405: "Method not allowed",
    413: "Request too large",
    415: "Type not accepted",
    429: "Too many requests",
    500: "Something went wrong",
    503: "Service temporarily unavailable",
}
HINTS = {
    401: "Sign in, then try again.",
    403: "If you need access, ask an administrator for the permission.",
    404: "Check the URL, or start from the home page.",
    413: "Send less at once, such as a smaller file.",
    429: "Wait a few minutes, then try again.",
    500: "This is our fault. If it happens again, contact us with the details below.",
    503: "Try again in a minute.",
}
# The details for clients of an API, which have no pages.
API_DETAILS = {
    401: TITLES[401],
    403: TITLES[403],
    404: "There is nothing at this URL.",
    500: "This is our fault. If it happens again, contact us with the request_id.",
}


def init_app(app: Flask) -> None:
    """Render all errors in the style of the service."""
    app.register_error_handler(HTTPException, show)


def wants_json() -> bool:
    """Return whether the client prefers JSON to a page, or is a script."""
    return prefers_json(request)


def refusal(
    code: int, error: str, headers: Mapping[str, str] | None = None
) -> ResponseReturnValue:
    """Return the JSON response to a request that is refused before its view.

    Args:
        code: the HTTP status.
        error: the reason.
        headers: other headers of the response.
    """
    if problems.apply():
        return problems.response(code, error), headers or {}
    return jsonify(error=error), code, headers or {}


def prefers_json(sent: Request) -> bool:
    """Return the same for any request, such as one that is no longer current."""
    if "Authorization" in sent.headers or problems.covers(sent.path):
        return True
    best = sent.accept_mimetypes.best_match(["text/html", "application/json"])
    return sent.is_json or best == "application/json"


def humanize(seconds: int) -> str:
    """Return a duration in words, rounded up."""
    if seconds <= A_FEW_SECONDS:
        return "a few seconds"
    minutes = math.ceil(seconds / 60)
    return "a minute" if minutes == 1 else f"{minutes} minutes"


def report(error: BaseException, **details: Any) -> None:
    """Roll back the transaction, then log and count an exception.

    Exceptions during the error response are only logged: each request has one event.
    """
    roll_back()
    if "database_down" in g:
        log.error("error_page_failed", exc_info=error)
        return
    g.database_down = is_outage(error)
    name = "sys_database_unreachable" if g.database_down else "sys_error"
    events.emit(name, exc_info=error, **details)


@contextmanager
def logged() -> Iterator[None]:
    """Log an exception that follows an earlier one, which has its event."""
    try:
        yield
    except Exception:  # noqa: BLE001
        roll_back()
        log.exception("finishing_failed")


def show(error: HTTPException) -> ResponseReturnValue:
    """Return the page, or the JSON, of an error."""
    if error.response is not None:
        return error.response
    if isinstance(error, InternalServerError) and not error.original_exception:
        report(error)
    if g.get("database_down"):
        error = ServiceUnavailable(retry_after=SOON)
    if error.code in UNFIT:
        events.emit("input_validation_fail", reason=type(error).__name__)
    if isinstance(error, SecurityError):
        # An unknown host gets no page, as its links would point to that host.
        return "This service does not serve that host name.\n", 400, PLAIN
    code = error.code or InternalServerError.code
    title, hint = _title_and_hint(error, code)
    headers = [(k, v) for k, v in error.get_headers() if k != "Content-Type"]
    if code >= InternalServerError.code:
        # The page must not load the user again: the database may be unavailable.
        roll_back()
        g._login_user = AnonymousUserMixin()
    if problems.apply():
        members = {"errors": getattr(error, "errors", None)}
        detail = _detail(error, code, title, hint)
        return problems.response(code, detail, **members), headers
    if wants_json():
        body = jsonify(error=title, hint=hint, request_id=request_log.current_id())
        return body, code, headers
    page = render_template(
        "bulwark/error.html",
        code=code,
        title=title,
        hint=hint,
        form_url=_form_url() if code in UNFIT else None,
    )
    return page, code, headers


def _form_url() -> str | None:
    """Return the URL of the sent form, if it is also the URL of its page."""
    adapter = current_app.create_url_adapter(request)
    if request.method != "POST" or not request.endpoint or not adapter:
        return None
    if "GET" not in adapter.allowed_methods():
        return None
    return url_for(request.endpoint, **(request.view_args or {}))


def _detail(error: HTTPException, code: int, title: str, hint: str) -> str:
    """Return what a client of the API reads about an error."""
    if isinstance(error, CSRFError):
        return f"{title}. {hint}"
    is_own = error.description != type(error).description
    if is_own or isinstance(getattr(error, "retry_after", None), int):
        return hint
    return API_DETAILS.get(code) or hint or str(error.description)


def _title_and_hint(error: HTTPException, code: int) -> tuple[str, str]:
    """Return the title and the hint of an error."""
    title, hint = TITLES.get(code, error.name), HINTS.get(code, "")
    if isinstance(error, OriginError):
        return error.title, error.description or hint
    if isinstance(error, CSRFError):
        return "This form has expired", "Go back, reload the page and submit it again."
    if error.description != type(error).description:
        return title, error.description or hint
    if isinstance(wait := getattr(error, "retry_after", None), int):
        return title, f"Try again in {humanize(wait)}."
    return title, hint
