"""The data of a form, sent by a page or a script."""

from collections.abc import Mapping
from types import new_class
from typing import Any, TypeVar

from flask import request
from flask_security import forms as stock
from werkzeug.datastructures import MultiDict

T = TypeVar("T", bound=stock.Form)


def submitted() -> MultiDict[str, Any] | None:
    """Return the submitted form or JSON data; None if the request submits nothing."""
    if request.method != "POST":
        return None
    return MultiDict(request.get_json()) if request.is_json else request.form


def subclass(base: type[T], fields: Mapping[str, Any], *mixins: type) -> type[T]:
    """Return a subclass of a form with more fields, below its own."""
    bases = (*mixins, base)
    form: type[T] = new_class(
        base.__name__, bases, exec_body=lambda ns: ns.update(fields)
    )
    return form
