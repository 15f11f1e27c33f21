"""Handling of all exceptions: the client gets a response, the operator one event.

Flask handles exceptions in views with error pages. This module handles those that Flask
passes on to the server: exceptions in an error page, in functions that run after the
view or at teardown, and in streamed response bodies.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import copy_context
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from flask import (
    Flask,
    Request,
    Response,
    copy_current_request_context,
    g,
    json,
    request,
    request_finished,
    session,
)
from flask_login import current_user
from jinja2 import Environment, FileSystemLoader
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.exceptions import InternalServerError, ServiceUnavailable

from bulwark.database import db
from bulwark.database.outages import is_outage, roll_back
from bulwark.observability import request_log
from bulwark.observability.logging import log
from bulwark.web import errors, headers

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

Method = Callable[..., Any]
STREAM = "bulwark.stream"  # key in the environ: a body that has not started
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
            return self._answer(environ, start_response)
        except Exception as error:
            if _propagates(self.app):
                raise
            with self.app.app_context():
                errors.tell_fault(error)
                answer = _bare_answer(Request(environ))
                answer.headers.update(headers.LAST_RESORT)
                return answer(environ, start_response)

    def _answer(
        self, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> "Iterable[bytes]":
        """Handle a request; start a streamed response after its first chunk."""
        started: list[Any] = []

        def hold(*arguments: Any) -> Any:
            if STREAM in environ:
                started[:] = arguments
                return None  # nothing uses the legacy write()
            return start_response(*arguments)

        body = self.wsgi_app(environ, hold)
        if stream := environ.pop(STREAM, None):
            try:
                stream.begin()
            except Exception as error:  # noqa: BLE001  any exception gets a response
                page = stream.in_request(_answer_as_view, stream, error)
                return cast("Iterable[bytes]", stream.in_request(page, environ, hold))
            stream.context.run(start_response, *started)
        return body


class Stream:
    """A streamed body. Once it has started, an exception can only be logged.

    It starts after the request context has ended, as Flask's streams do, and before the
    headers are sent, so that an error page can still replace it. `context` is that of
    the request, `in_request` calls a function in a new request context, and `front` are
    the first arguments of Flask's methods.
    """

    def __init__(self, app: Flask, response: Response, *front: Any) -> None:
        self.app, self.response, self.front = app, response, front
        self.parts: Iterable[Any] = response.response
        self.iterator: Iterator[bytes] = map(_encoded, self.parts)
        self.context = copy_context()
        self.in_request = copy_current_request_context(_call)
        self.visitor = g.get("_login_user")
        rule = request.url_rule
        self.fields = {"method": request.method, "route": rule.rule if rule else None}

    def begin(self) -> None:
        """Generate the first chunk."""
        self.iterator = chain(list(islice(self.iterator, 1)), self.iterator)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            return next(self.iterator)
        except StopIteration:
            raise
        except Exception as error:
            with self.app.app_context():
                errors.tell_fault(error, **self.fields)
            raise

    def close(self) -> None:
        """Close the underlying iterable."""
        if hasattr(self.parts, "close"):
            self.parts.close()


def init_app(app: Flask) -> None:
    """Wrap the methods of Flask that handle exceptions."""
    app.wsgi_app = LastResort(app, app.wsgi_app)  # type: ignore[method-assign]
    for name, guard in (
        ("log_exception", _tell_instead),
        ("handle_user_exception", _show_outages),
        ("handle_exception", _answer_anyway),
        ("finalize_request", _finish_anyway),
        ("do_teardown_request", _end_anyway),
        ("do_teardown_appcontext", _end_anyway),
    ):
        setattr(app, name, guard(app, getattr(app, name)))


def _propagates(app: Flask) -> bool:
    """Return whether exceptions propagate to the debugger or a test."""
    set_to: bool | None = app.config["PROPAGATE_EXCEPTIONS"]
    return app.testing or app.debug if set_to is None else set_to


# Flask 3.2 adds a first argument to these methods, so the wrappers use the last one.


def _tell_instead(_: Flask, __: Method) -> Method:
    """Replace Flask's own log line, which includes the path: it may contain a token."""
    return lambda *args: errors.tell_fault(args[-1][1])


def _show_outages(_: Flask, handle: Method) -> Method:
    """Respond with 503 while the database is down, also in development and tests.

    For other database errors, roll back first, as the app's error handler may use the
    database.
    """

    def handle_user_exception(*args: Any) -> Any:
        error = args[-1]
        if is_outage(error):
            errors.tell_fault(error)
            return errors.show(InternalServerError(original_exception=error))
        if isinstance(error, SQLAlchemyError):
            roll_back()
        return handle(*args)

    return handle_user_exception


def _answer_anyway(app: Flask, handle: Method) -> Method:
    """Respond even if the error page fails."""

    def handle_exception(*args: Any) -> Any:
        try:
            return handle(*args)
        except Exception as error:
            if _propagates(app):
                raise
            errors.tell_fault(error)
            answer = _bare_answer(request)
            finalize = cast("Method", app.finalize_request)
            return finalize(*args[:-1], answer, from_error_handler=True)

    return handle_exception


def _finish_anyway(app: Flask, finish: Method) -> Method:
    """Detect invalid responses while an error page can still replace them."""

    def finalize_request(*args: Any, from_error_handler: bool = False) -> Response:
        if from_error_handler:
            response = _finish_error(app, app.make_response(args[-1]))
        else:
            response = finish(*args)
        _check_headers(response)
        # HEAD has no body, and the server sends files.
        made_while_sent = response.is_streamed and not response.direct_passthrough
        if made_while_sent and request.method != "HEAD":
            response.response = Stream(app, response, *args[:-1])
            request.environ[STREAM] = response.response
        return response

    return finalize_request


def _call(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)


def _answer_as_view(stream: Stream, error: Exception) -> Response:
    """Return the response to a stream's exception, as if its view had raised it."""
    app: Any = stream.app
    with _logged():
        stream.response.close()
    if not is_outage(error):
        with suppress(Exception):
            bool(current_user)  # reloads the user: the view's session is closed
    elif stream.visitor:
        g._login_user = stream.visitor
    try:
        shown = app.handle_user_exception(*stream.front, error)
    except Exception as other:  # noqa: BLE001  as in Flask
        page: Response = app.handle_exception(*stream.front, other)
    else:
        page = app.finalize_request(*stream.front, shown, from_error_handler=True)
    if stream_of_page := request.environ.pop(STREAM, None):
        try:
            stream_of_page.begin()
        except Exception as other:  # noqa: BLE001  as above
            page = app.handle_exception(*stream.front, other)
            request.environ.pop(STREAM, None)
    return page


def _encoded(part: Any) -> bytes:
    """Encode a chunk; raise if it is neither text nor bytes, before the server does."""
    return part.encode() if isinstance(part, str) else b"".join([part])


def _finish_error(app: Flask, response: Response) -> Response:
    """Run the after-request functions; discard the changes of those that fail."""
    for name in (*request.blueprints, None):
        for function in reversed(app.after_request_funcs.get(name, ())):
            with _logged():
                changed = app.ensure_sync(function)(response)
                _check_headers(changed)
                response = changed
    with _logged():
        app.session_interface.save_session(app, session, response)
    with _logged():
        request_finished.send(app, _async_wrapper=app.ensure_sync, response=response)
    return response


def _check_headers(response: Response) -> None:
    """Raise if the server could not send the response, as with a broken `Location`."""
    response.get_wsgi_headers(request.environ)


@contextmanager
def _logged() -> Iterator[None]:
    """Log an exception that follows an earlier one, which has its event."""
    try:
        yield
    except Exception:  # noqa: BLE001
        roll_back()
        log.exception("finishing_failed")


def _end_anyway(app: Flask, end: Method) -> Method:
    """Keep an exception in a teardown function from replacing the response."""

    def do_teardown(*args: Any) -> None:
        try:
            end(*args)
        except Exception as error:
            if _propagates(app):
                raise
            errors.tell_fault(error)
            db.session.remove()  # the skipped functions include this one

    return do_teardown


def _bare_answer(sent: Request) -> Response:
    """Return a page, or JSON, that depends on nothing that may have failed."""
    away = g.get("database_away")
    code = ServiceUnavailable.code if away else InternalServerError.code
    title, hint = errors.TITLES[code], errors.HINTS[code]
    request_id = sent.environ.get(request_log.ENVIRON, "")
    if errors.prefers_json(sent):
        body = json.dumps({"error": title, "hint": hint, "request_id": request_id})
    else:
        body = PAGE.render(code=code, title=title, hint=hint, request_id=request_id)
    answer = Response(body, code)
    answer.mimetype = "application/json" if errors.prefers_json(sent) else "text/html"
    if away:
        answer.headers["Retry-After"] = str(errors.SOON)
    return answer
