"""The last resort: a response to each exception that escapes Flask."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from flask import Flask, Request, Response, g, json
from jinja2 import Environment, FileSystemLoader
from werkzeug.exceptions import InternalServerError, ServiceUnavailable

from bulwark.observability import request_log
from bulwark.web import errors, headers, problems, streams

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

# Separate from the app, whose templates, filters and context can't break this page.
TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parents[1] / "templates"), autoescape=True
)
PAGE = TEMPLATES.get_template("bulwark/fault.html")


class LastResort:
    """Responds to exceptions that escape Flask, before the server does."""

    def __init__(self, app: Flask, wsgi_app: "WSGIApplication") -> None:
        self.app, self.wsgi_app = app, wsgi_app

    def __call__(
        self, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> "Iterable[bytes]":
        """Handle a request."""
        try:
            return self._respond(environ, start_response)
        except Exception as error:
            if propagates(self.app):
                raise
            with self.app.app_context():
                errors.report(error)
                response = bare_response(Request(environ))
                response.headers.update(headers.LAST_RESORT)
                return response(environ, start_response)

    def _respond(
        self, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> "Iterable[bytes]":
        """Handle a request; start a streamed response after its first chunk."""
        started: list[Any] = []

        def hold(*arguments: Any) -> Any:
            if streams.ENVIRON in environ:
                started[:] = arguments
                return None  # nothing uses the legacy write()
            return start_response(*arguments)

        body = self.wsgi_app(environ, hold)
        if stream := environ.pop(streams.ENVIRON, None):
            try:
                stream.begin()
            except Exception as error:  # noqa: BLE001  any exception gets a response
                page = stream.in_request(streams.response_to, stream, error)
                return cast("Iterable[bytes]", stream.in_request(page, environ, hold))
            stream.context.run(start_response, *started)
        return body


def propagates(app: Flask) -> bool:
    """Return whether exceptions propagate to the debugger or a test."""
    set_to: bool | None = app.config["PROPAGATE_EXCEPTIONS"]
    return app.testing or app.debug if set_to is None else set_to


def bare_response(sent: Request) -> Response:
    """Return a page, or JSON, that depends on nothing that may have failed."""
    is_down = g.get("database_down")
    code = ServiceUnavailable.code if is_down else InternalServerError.code
    title, hint = errors.TITLES[code], errors.HINTS[code]
    request_id = sent.environ.get(request_log.ENVIRON, "")
    if problems.covers(sent.path):
        detail = errors.API_DETAILS.get(code, hint)
        body, kind = problems.body(code, detail, request_id), problems.MIMETYPE
    elif errors.prefers_json(sent):
        body = json.dumps({"error": title, "hint": hint, "request_id": request_id})
        kind = "application/json"
    else:
        body = PAGE.render(code=code, title=title, hint=hint, request_id=request_id)
        kind = "text/html"
    response = Response(body, code, mimetype=kind)
    if is_down:
        response.headers["Retry-After"] = str(errors.SOON)
    return response
