"""The data of a form, sent by a page or a script."""

from typing import Any

from flask import request
from werkzeug.datastructures import MultiDict


def submitted() -> MultiDict[str, Any] | None:
    """Return the submitted form or JSON data; None if the request submits nothing."""
    if request.method != "POST":
        return None
    return MultiDict(request.get_json()) if request.is_json else request.form
