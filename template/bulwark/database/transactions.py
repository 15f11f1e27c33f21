"""The end of a transaction: a request commits it after its response is made."""

from flask import Response, after_this_request, has_request_context

from bulwark.database import db


def commit_after_request() -> None:
    """Commit after the current request, unless it fails; its view may not commit.

    Outside a request, the caller commits.
    """
    if has_request_context():
        after_this_request(_commit)


def _commit(response: Response) -> Response:
    if response.status_code < 500:  # noqa: PLR2004
        db.session.commit()
    return response
