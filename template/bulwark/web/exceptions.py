"""Handling of all exceptions: the client gets a response, the operator one event.

Flask handles exceptions in views with error pages. This module handles those that Flask
passes on to the server: exceptions in an error page, in functions that run after the
view or at teardown, and in streamed response bodies.
"""

from collections.abc import Callable
from typing import Any, cast

from flask import Flask, Response, request, request_finished, session
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.exceptions import InternalServerError

from bulwark.database import db
from bulwark.database.outages import is_outage, roll_back
from bulwark.web import errors, streams
from bulwark.web.last_resort import LastResort, bare_response, propagates

Method = Callable[..., Any]


def init_app(app: Flask) -> None:
    """Wrap the methods of Flask that handle exceptions."""
    app.wsgi_app = LastResort(app, app.wsgi_app)  # type: ignore[method-assign]
    for name, guard in (
        ("log_exception", _report_instead),
        ("handle_user_exception", _show_outages),
        ("handle_exception", _handle_all_exceptions),
        ("finalize_request", _check_responses),
        ("do_teardown_request", _end_anyway),
        ("do_teardown_appcontext", _end_anyway),
    ):
        setattr(app, name, guard(app, getattr(app, name)))


# Flask 3.2 adds a first argument to these methods, so the wrappers use the last one.


def _report_instead(_: Flask, __: Method) -> Method:
    """Replace Flask's own log line, which includes the path: it may contain a token."""
    return lambda *args: errors.report(args[-1][1])


def _show_outages(_: Flask, handle: Method) -> Method:
    """Respond with 503 while the database is down, also in development and tests.

    For other database errors, roll back first, as the app's error handler may use the
    database.
    """

    def handle_user_exception(*args: Any) -> Any:
        error = args[-1]
        if is_outage(error):
            errors.report(error)
            return errors.show(InternalServerError(original_exception=error))
        if isinstance(error, SQLAlchemyError):
            roll_back()
        return handle(*args)

    return handle_user_exception


def _handle_all_exceptions(app: Flask, handle: Method) -> Method:
    """Respond even if the error page fails."""

    def handle_exception(*args: Any) -> Any:
        try:
            return handle(*args)
        except Exception as error:
            if propagates(app):
                raise
            errors.report(error)
            response = bare_response(request)
            finalize = cast("Method", app.finalize_request)
            return finalize(*args[:-1], response, from_error_handler=True)

    return handle_exception


def _check_responses(app: Flask, finish: Method) -> Method:
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
            response.response = streams.Stream(app, response, *args[:-1])
            request.environ[streams.ENVIRON] = response.response
        return response

    return finalize_request


def _end_anyway(app: Flask, end: Method) -> Method:
    """Keep an exception in a teardown function from replacing the response."""

    def do_teardown(*args: Any) -> None:
        try:
            end(*args)
        except Exception as error:
            if propagates(app):
                raise
            errors.report(error)
            db.session.remove()  # the skipped functions include this one

    return do_teardown


def _finish_error(app: Flask, response: Response) -> Response:
    """Run the after-request functions; discard the changes of those that fail."""
    for name in (*request.blueprints, None):
        for function in reversed(app.after_request_funcs.get(name, ())):
            with errors.logged():
                changed = app.ensure_sync(function)(response)
                _check_headers(changed)
                response = changed
    with errors.logged():
        app.session_interface.save_session(app, session, response)
    with errors.logged():
        request_finished.send(app, _async_wrapper=app.ensure_sync, response=response)
    return response


def _check_headers(response: Response) -> None:
    """Raise if the server could not send the response.

    This can only fail for a broken location, or a body whose length is not known yet.
    """
    names = {name.lower() for name, _ in response.headers}
    if "content-length" not in names or names & {"location", "content-location"}:
        response.get_wsgi_headers(request.environ)
