"""Entity tags: clients skip what they have, and overwrite no change of others."""

from typing import Any

from flask import Response, request
from pydantic import BaseModel
from werkzeug.exceptions import PreconditionFailed, PreconditionRequired
from werkzeug.http import generate_etag

OK = 200
CHANGED = "It was changed in the meantime. Read it again, then retry."
MISSING = "Send If-Match with the ETag of what you read."


def tag(response: Response) -> Response:
    """Add the tag of a result; respond with 304 if the client has the same result."""
    if request.method != "GET" or response.status_code != OK or response.is_streamed:
        return response
    response.set_etag(generate_etag(response.get_data()))
    response.make_conditional(request)
    return response


def check_match(current: BaseModel, *, required: bool = False) -> None:
    """Refuse a change if `If-Match` names a state other than the current one.

    Args:
        current: what a GET request returns now. Lock its row first.
        required: whether to refuse changes without `If-Match`.

    Raises:
        PreconditionFailed: the client read another state.
        PreconditionRequired: the client did not send what it read.
    """
    if "If-Match" not in request.headers:
        if required:
            raise PreconditionRequired(MISSING)
        return
    if not request.if_match.contains(_tag_of(current)):
        raise PreconditionFailed(CHANGED)


def _tag_of(current: BaseModel) -> Any:
    return generate_etag(current.model_dump_json(by_alias=True).encode())
