"""The request log: each request has an id, one log line and one count.

The line is written when the response starts, with the status that the client sees.
"""

import re
import secrets
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import structlog
from flask import Flask, g, has_request_context, request, request_started

from bulwark.observability import metrics
from bulwark.observability.line_limit import line_limiter
from bulwark.observability.logging import log

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

HEADER = "X-Request-ID"
# What a caller may send as its request id; anything else is replaced.
REQUEST_ID = re.compile(r"[A-Za-z0-9-]{16,64}")
REQUEST_ID_BYTES = 16
ENVIRON = "bulwark.request_id"


class RequestLog:
    """Gives each request an id, and logs it when its response starts."""

    def __init__(self, wsgi_app: "WSGIApplication") -> None:
        self.wsgi_app = wsgi_app

    def __call__(
        self, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> "Iterable[bytes]":
        """Handle a request."""
        started = time.perf_counter()
        sent = environ.get("HTTP_X_REQUEST_ID", "")
        new = secrets.token_hex(REQUEST_ID_BYTES)
        request_id = environ[ENVIRON] = sent if REQUEST_ID.fullmatch(sent) else new
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)

        def start(status: str, headers: list[tuple[str, str]], *error: Any) -> Any:
            others = [pair for pair in headers if pair[0].lower() != HEADER.lower()]
            _finish(environ, int(status[:3]), time.perf_counter() - started)
            return start_response(status, [*others, (HEADER, request_id)], *error)

        return self.wsgi_app(environ, start)


def init_app(app: Flask) -> None:
    """Log and count each request, and let templates show its id."""
    app.wsgi_app = RequestLog(app.wsgi_app)  # type: ignore[method-assign]
    app.context_processor(lambda: {"request_id": current_id()})
    request_started.connect(_share_id, app)


def current_id() -> str:
    """Return the id of the current request; "" when there is none."""
    return request.environ.get(ENVIRON, "") if has_request_context() else ""


def _share_id(_: Flask, **__: Any) -> None:
    """Set the id in `g`, for views and templates of the app."""
    g.request_id = current_id()


def _finish(environ: "WSGIEnvironment", status: int, seconds: float) -> None:
    """Log the route's template, never the path: a path may contain a token."""
    method = environ["REQUEST_METHOD"].upper()
    rule = request.url_rule if has_request_context() else None
    metrics.count_request(method, rule.rule if rule else None, status, seconds)
    if status < HTTPStatus.BAD_REQUEST or line_limiter.allow(f"request {status}"):
        log.info(
            "request",
            method=method if method.isalpha() else "?",
            route=rule.rule if rule else None,
            status=status,
            milliseconds=round(1000 * seconds, 1),
        )
