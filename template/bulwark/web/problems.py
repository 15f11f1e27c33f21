"""Errors of the JSON API: problem details (RFC 9457), whatever the request accepts."""

import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from flask import Response, current_app, json, request
from flask.sansio.app import App
from werkzeug.exceptions import UnprocessableEntity

from bulwark.observability import request_log

VARIABLE = re.compile("<[^>]+>")
MIMETYPE = "application/problem+json"


class InvalidInput(UnprocessableEntity):
    """The values of a request do not have the declared types.

    Args:
        errors: for each value, `detail` and its place: `pointer`, a JSON pointer into
            the body, or `parameter`, a name of the query string.
    """

    description = "Some values are not valid."

    def __init__(self, errors: Sequence[Mapping[str, str]]) -> None:
        super().__init__()
        self.errors = errors


def serve_under(app: App, prefix: str) -> None:
    """Answer all errors at a URL prefix, such as `/api/v1`, with problem details.

    A prefix may contain variable parts, such as `/teams/<team>/api`.
    """
    pattern = VARIABLE.sub("[^/]+", re.escape(prefix.rstrip("/")))
    app.extensions.setdefault("api_prefixes", set()).add(re.compile(pattern))


def covers(path: str) -> bool:
    """Return whether a path is part of an API."""
    prefixes: set[re.Pattern[str]] = current_app.extensions.get("api_prefixes", set())
    found = (prefix.match(path) for prefix in prefixes)
    return any(match and path[match.end() :][:1] in ("", "/") for match in found)


def apply() -> bool:
    """Return whether the current request calls an API."""
    return covers(request.path)


def body(status: int, detail: str, request_id: str, **members: Any) -> str:
    """Return problem details as JSON; the title is the name of the status."""
    problem = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "request_id": request_id,
        **members,
    }
    return json.dumps({name: value for name, value in problem.items() if value})


def response(status: int, detail: str, **members: Any) -> Response:
    """Return a response with problem details to the current request."""
    text = body(status, detail, request_log.current_id(), **members)
    return Response(text, status, mimetype=MIMETYPE)
