"""The blueprint of an API: its views are typed, its errors are problem details.

from pydantic import BaseModel
from bulwark import Api, permission

api = Api("api", __name__, url_prefix="/api/v1", title="Notes")

class NewNote(BaseModel):
    title: str

@api.post("/notes", status=201)
@permission("notes:write")
def add(body: NewNote) -> Note: ...
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from flask import Blueprint, Response, current_app, json, render_template, request
from flask.blueprints import BlueprintSetupState
from flask.typing import ResponseReturnValue

from bulwark.api import etags, limits
from bulwark.api.openapi import JSON, document
from bulwark.api.operations import Operation
from bulwark.web import problems
from bulwark.web.access import signed_in
from bulwark.web.idempotency import idempotent

View = TypeVar("View", bound=Callable[..., Any])


class Api(Blueprint):
    """A blueprint whose views take and return typed values as JSON.

    An argument `body` is the JSON body, `query` the query string, and any other one a
    value of the path. The request must fit the annotations: otherwise the response is
    404 for the path, and 422 for the rest. The result becomes the JSON response.

    Args:
        name: the name of the blueprint.
        import_name: `__name__`.
        url_prefix: where the API is, such as `/api/v1`.
        title: the name of the API, in its documentation.
        version: the version of the API, in its documentation.
        limit: how often each token, user or network may call the views, all of them
            together.
        documentation: the decorator that declares who may read `/openapi.json` and
            `/docs`: `public`, `signed_in` or `permission(…)`.
    """

    def __init__(
        self,
        name: str,
        import_name: str,
        *,
        url_prefix: str,
        title: str,
        version: str = "1",
        limit: str = "600 per minute",
        documentation: Callable[[Callable[..., Any]], Any] = signed_in,
    ) -> None:
        super().__init__(name, import_name, url_prefix=url_prefix)
        self.limit = limit
        self.info = {"title": title, "version": version}
        self.operations: dict[str, Operation] = {}
        self._views: dict[str, Callable[..., Any]] = {}
        self._documents: dict[str, Any] = {}
        self.record(_serve)
        self.after_request(limits.show)
        self.after_request(etags.tag)
        self._describe(documentation)

    def add_url_rule(
        self,
        rule: str,
        endpoint: str | None = None,
        view_func: Callable[..., Any] | None = None,
        provide_automatic_options: bool | None = None,
        *,
        status: int | None = None,
        errors: Sequence[int] = (),
        **options: Any,
    ) -> None:
        """Add a view.

        Args:
            rule: the path, below the prefix of the API.
            endpoint: the name of the route; None for the name of the view.
            view_func: the view.
            provide_automatic_options: as in Flask.
            status: the status of a successful response; None for 200, or 204 if the
                view returns None.
            errors: other statuses that the view responds with, for the documentation.
            options: as in Flask, such as `methods`.

        Raises:
            UntypedViewError: an annotation is missing.
        """
        if view_func is not None:
            endpoint = endpoint or view_func.__name__
            if endpoint not in self.operations:
                operation = Operation(view_func, status, tuple(errors))
                self.operations[endpoint] = operation
                view = idempotent(operation.wrap(), limits.user_id)
                self._views[endpoint] = limits.limited(view, self.limit, self.name)
            view_func = self._views[endpoint]
        super().add_url_rule(
            rule, endpoint, view_func, provide_automatic_options, **options
        )

    # Flask's own methods accept only views that return responses.

    def get(self, rule: str, **options: Any) -> Callable[[View], View]:
        """Add a view that reads; the options are those of `add_url_rule`."""
        return self._add("GET", rule, options)

    def post(self, rule: str, **options: Any) -> Callable[[View], View]:
        """Add a view that adds or acts."""
        return self._add("POST", rule, options)

    def put(self, rule: str, **options: Any) -> Callable[[View], View]:
        """Add a view that replaces."""
        return self._add("PUT", rule, options)

    def patch(self, rule: str, **options: Any) -> Callable[[View], View]:
        """Add a view that changes some fields."""
        return self._add("PATCH", rule, options)

    def delete(self, rule: str, **options: Any) -> Callable[[View], View]:
        """Add a view that deletes."""
        return self._add("DELETE", rule, options)

    def _document(self) -> Any:
        """Return the OpenAPI document, which is generated once."""
        name = request.blueprint or self.name
        if name not in self._documents:
            app = current_app._get_current_object()  # type: ignore[attr-defined]
            self._documents[name] = document(app, name, self.info, self.operations)
        return self._documents[name]

    def _describe(self, declare: Callable[[Callable[..., Any]], Any]) -> None:
        """Add the document, and a page that shows it without scripts."""

        def openapi(**_: str) -> ResponseReturnValue:
            return Response(json.dumps(self._document()), mimetype=JSON)

        def docs(**_: str) -> ResponseReturnValue:
            return render_template("bulwark/api.html", api=self._document())

        super().add_url_rule("/openapi.json", None, declare(openapi))
        super().add_url_rule("/docs", None, declare(docs))

    def _add(
        self, method: str, rule: str, options: dict[str, Any]
    ) -> Callable[[View], View]:
        def add(view: View) -> View:
            endpoint = options.pop("endpoint", None)
            self.add_url_rule(rule, endpoint, view, methods=[method], **options)
            return view

        return add


def _serve(state: BlueprintSetupState) -> None:
    problems.serve_under(state.app, state.url_prefix or "/")
