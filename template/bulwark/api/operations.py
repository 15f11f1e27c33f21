"""Typed views: what they take and return, read from their annotations."""

import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from flask import Response, request
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails
from werkzeug.exceptions import NotFound
from werkzeug.wrappers import Response as AnyResponse

from bulwark.web.problems import InvalidInput

BODY, QUERY, RETURN = "body", "query", "return"
OK, NO_CONTENT = 200, 204
LISTS = (list, set, tuple, frozenset)
UNKNOWN_TAG = "Input tag does not match any of the expected tags"
MOST, LENGTH = 50, 300  # errors in a response, and characters of each text


class UntypedViewError(TypeError):
    """A view of the API does not declare what it takes or returns."""

    def __init__(self, view: Callable[..., Any], missing: str) -> None:
        super().__init__(f"{view.__module__}.{view.__name__}: annotate {missing}")


class Operation:
    """What a view takes and returns.

    Args:
        view: the view; each argument and its result are annotated.
        status: the status of a successful response; None for 200, or 204 without a
            result.
        errors: other statuses that the view responds with, for the documentation.
    """

    def __init__(
        self, view: Callable[..., Any], status: int | None, errors: tuple[int, ...]
    ) -> None:
        self.view, self.errors = view, errors
        hints = get_type_hints(view, include_extras=True)
        untyped = {*inspect.signature(view).parameters, RETURN} - hints.keys()
        if untyped:
            raise UntypedViewError(view, ", ".join(sorted(untyped)))
        self.result = TypeAdapter(hints[RETURN]) if _is_data(hints[RETURN]) else None
        self.body = TypeAdapter(hints[BODY]) if BODY in hints else None
        self.query = _query_model(view, hints.get(QUERY))
        self.path = {
            name: TypeAdapter(hint)
            for name, hint in hints.items()
            if name not in (BODY, QUERY, RETURN)
        }
        is_empty = hints[RETURN] is type(None)
        self.status = status or (NO_CONTENT if is_empty else OK)

    def wrap(self) -> Callable[..., AnyResponse]:
        """Return the view for Flask, which checks the request and writes the JSON."""

        @wraps(self.view)
        def view(**values: Any) -> AnyResponse:
            return self._response(self.view(**self._arguments(values)))

        return view

    def _arguments(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of the view, or raise an error of the client."""
        found: dict[str, Any] = {}
        for name, value in values.items():
            try:
                found[name] = self.path[name].validate_python(value)
            except ValidationError:
                raise NotFound from None
        if self.query:
            with _invalid_is_refused(_parameter):
                found[QUERY] = self.query.model_validate(dict(_sent(self.query)))
        if self.body:
            # Flask parses it first, and rejects what databases can't store.
            sent = json.dumps(request.get_json())
            with _invalid_is_refused(_pointer):
                found[BODY] = self.body.validate_json(sent, strict=True)
        return found

    def _response(self, result: Any) -> AnyResponse:
        if isinstance(result, AnyResponse):
            return result
        if self.result is None or self.status == NO_CONTENT:
            return Response(status=self.status)
        # A result of another type is a bug, and may reveal what it should not.
        data = self.result.dump_json(result, by_alias=True, warnings="error")
        return Response(data, self.status, mimetype="application/json")


class _invalid_is_refused:  # noqa: N801  used like a function
    """Turns pydantic's errors into a short response that repeats no value."""

    def __init__(self, place: Callable[[ErrorDetails], dict[str, str]]) -> None:
        self.place = place

    def __enter__(self) -> None:
        """Begin to validate."""

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        """Raise the response."""
        if isinstance(error, ValidationError):
            found = error.errors(
                include_url=False, include_context=False, include_input=False
            )
            # A small body can cause errors of many times its size.
            places = [
                {name: text[:LENGTH] for name, text in one.items()}
                for one in (
                    {"detail": _detail(e), **self.place(e)} for e in found[:MOST]
                )
            ]
            raise InvalidInput(places) from None


def _detail(error: ErrorDetails) -> str:
    """Return the message, without the tag that one of pydantic's repeats."""
    return UNKNOWN_TAG if error["type"] == "union_tag_invalid" else error["msg"]


def _pointer(error: ErrorDetails) -> dict[str, str]:
    """Return the place in the body, a JSON pointer (RFC 6901)."""
    parts = (str(p).replace("~", "~0").replace("/", "~1") for p in error["loc"])
    return {"pointer": "".join(f"/{part}" for part in parts)}


def _parameter(error: ErrorDetails) -> dict[str, str]:
    return {"parameter": ".".join(map(str, error["loc"]))}


def _is_data(hint: Any) -> bool:
    """Return whether a result becomes JSON: it is neither empty nor a response."""
    is_response = isinstance(hint, type) and issubclass(hint, AnyResponse)
    return hint is not type(None) and not is_response


def _query_model(view: Callable[..., Any], hint: Any) -> type[BaseModel] | None:
    if hint is None or (isinstance(hint, type) and issubclass(hint, BaseModel)):
        return hint
    raise UntypedViewError(view, "query with a model")


def _sent(model: type[BaseModel]) -> Iterator[tuple[str, Any]]:
    """Yield the query string: lists for fields with lists, and for repeated names."""
    lists = {
        alias
        for name, field in model.model_fields.items()
        if is_list(field.annotation)
        for alias in (name, field.alias, field.validation_alias)
    }
    for name, values in request.args.lists():
        is_single = name not in lists and len(values) == 1
        yield name, values[0] if is_single else values


def is_list(hint: Any) -> bool:
    """Return whether a field of a query takes several values, if any."""
    kind = get_origin(hint)
    if kind in (Annotated, Union, UnionType):
        return any(map(is_list, get_args(hint)))
    return (kind or hint) in LISTS
