"""Streamed bodies: an exception before the first chunk still gets an error page."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from contextvars import copy_context
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from flask import Flask, Response, copy_current_request_context, g, request
from flask_login import current_user

from bulwark.database.outages import is_outage
from bulwark.web import errors

if TYPE_CHECKING:
    from collections.abc import Iterable

ENVIRON = "bulwark.stream"  # a body that has not started


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
                errors.report(error, **self.fields)
            raise

    def close(self) -> None:
        """Close the underlying iterable."""
        if hasattr(self.parts, "close"):
            self.parts.close()


def response_to(stream: Stream, error: Exception) -> Response:
    """Return the response to a stream's exception, as if its view had raised it."""
    app: Any = stream.app
    with errors.logged():
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
    if stream_of_page := request.environ.pop(ENVIRON, None):
        try:
            stream_of_page.begin()
        except Exception as other:  # noqa: BLE001  as above
            page = app.handle_exception(*stream.front, other)
            request.environ.pop(ENVIRON, None)
    return page


def _call(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)


def _encoded(part: Any) -> bytes:
    """Encode a chunk; raise if it is neither text nor bytes, before the server does."""
    return part.encode() if isinstance(part, str) else b"".join([part])
