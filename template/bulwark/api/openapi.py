"""The description of an API: an OpenAPI 3.1 document, and a page that shows it.

It is generated from the routes, their annotations and their access declarations.
"""

import inspect
import json
import re
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any

from flask import Flask
from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from werkzeug.routing import Rule

from bulwark.api.operations import BODY, QUERY, RETURN, Operation
from bulwark.api.pagination import Page
from bulwark.web import access, idempotency, problems
from bulwark.web.access_matrix import IMPLIED

OPENAPI = "3.1.1"
SCHEMAS = "#/components/schemas/"
REFERENCE = re.compile(f'"{SCHEMAS}([^"]+)"')
PROBLEM = {"$ref": "#/components/responses/Problem"}
VARIABLE = re.compile(r"<(?:[^<>:]*:)?([^<>]+)>")
JSON = "application/json"
NO_NUL = r"^[^\u0000]*$"
COMPONENTS: dict[str, Any] = {
    "responses": {
        "Problem": {
            "description": "An error (RFC 9457)",
            "content": {problems.MIMETYPE: {"schema": {"$ref": f"{SCHEMAS}Problem"}}},
        }
    },
    "securitySchemes": {
        "token": {
            "type": "http",
            "scheme": "bearer",
            "description": "An access token with the permission",
        },
        "session": {
            "type": "apiKey",
            "in": "cookie",
            "name": "",
            "description": "The session of a signed-in user",
        },
    },
}
TEXT = {"type": "string"}
PROBLEM_SCHEMA: dict[str, Any] = {
    "title": "Problem",
    "description": "An error (RFC 9457).",
    "type": "object",
    "properties": {
        "type": TEXT,
        "title": TEXT | {"description": "The name of the status."},
        "status": {"type": "integer"},
        "detail": TEXT | {"description": "What is wrong with this request."},
        "request_id": TEXT | {"description": "Identifies this request in the logs."},
        "errors": {
            "type": "array",
            "description": "Each value that does not fit.",
            "items": {
                "type": "object",
                "properties": {
                    "detail": TEXT,
                    "pointer": TEXT | {"description": "Its JSON pointer in the body."},
                    "parameter": TEXT | {"description": "Its name in the query."},
                },
                "required": ["detail"],
            },
        },
    },
    "required": ["type", "title", "status"],
}
IDEMPOTENCY_KEY: dict[str, Any] = {
    "name": idempotency.HEADER,
    "in": "header",
    "description": "Repeated requests with the same key are carried out once.",
    "required": False,
    "schema": TEXT
    | {"maxLength": idempotency.KEY_LENGTH, "pattern": f"^{idempotency.VISIBLE}+$"},
}
Adapters = dict[tuple[str, str], TypeAdapter[Any]]


class _Schemas(GenerateJsonSchema):
    """Describes text in requests as `web/json_body.py` accepts it."""

    def str_schema(self, schema: Any) -> JsonSchemaValue:
        """Return the schema of a text, without NUL in a request."""
        found = super().str_schema(schema)
        if self.mode == "validation":
            found.setdefault("pattern", NO_NUL)
        return found


def document(
    app: Flask, name: str, info: Mapping[str, str], operations: Mapping[str, Operation]
) -> dict[str, Any]:
    """Return the OpenAPI document of an API.

    Args:
        app: the app.
        name: the name of the blueprint in the app.
        info: the title and version of the API.
        operations: its views by endpoint, without the name of the blueprint.
    """
    schemas, definitions = _schemas(operations)
    paths: dict[str, dict[str, Any]] = {}
    for rule, operation in _routes(app, name, operations):
        path = VARIABLE.sub(r"{\1}", rule.rule)
        described = _describe(app, rule, operation, schemas, definitions)
        for method in sorted((rule.methods or set()) - IMPLIED):
            paths.setdefault(path, {})[method.lower()] = described
    schemes = {name: dict(one) for name, one in COMPONENTS["securitySchemes"].items()}
    schemes["session"]["name"] = app.config["SESSION_COOKIE_NAME"]
    return {
        "openapi": OPENAPI,
        "info": dict(info),
        "paths": paths,
        "components": {
            **COMPONENTS,
            "securitySchemes": schemes,
            "schemas": {**_used(paths, definitions), "Problem": PROBLEM_SCHEMA},
        },
    }


def _used(paths: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schemas that paths refer to, also through other schemas."""
    names: set[str] = set()
    waiting: list[Any] = [paths]
    while waiting:
        found = set(REFERENCE.findall(json.dumps(waiting.pop())))
        waiting += [definitions[name] for name in (found & definitions.keys()) - names]
        names |= found
    return {name: schema for name, schema in definitions.items() if name in names}


def _routes(
    app: Flask, name: str, operations: Mapping[str, Operation]
) -> Iterator[tuple[Rule, Operation]]:
    for rule in sorted(app.url_map.iter_rules(), key=lambda rule: rule.rule):
        blueprint, _, endpoint = rule.endpoint.rpartition(".")
        if blueprint == name and endpoint in operations:
            yield rule, operations[endpoint]


def _schemas(
    operations: Mapping[str, Operation],
) -> tuple[dict[tuple[str, str], Any], dict[str, Any]]:
    """Return the schema of each part of each view, and those that they refer to."""
    inputs: list[tuple[tuple[str, str], Any, TypeAdapter[Any]]] = []
    for endpoint, operation in operations.items():
        parts: dict[str, TypeAdapter[Any] | None] = {
            BODY: operation.body,
            QUERY: TypeAdapter(operation.query) if operation.query else None,
            RETURN: operation.result,
            **operation.path,
        }
        for part, adapter in parts.items():
            mode = "serialization" if part == RETURN else "validation"
            if adapter:
                inputs.append(((endpoint, part), mode, adapter))
    found, more = TypeAdapter.json_schemas(
        inputs, ref_template=f"{SCHEMAS}{{model}}", schema_generator=_Schemas
    )
    return {key: schema for (key, _), schema in found.items()}, more.get("$defs", {})


def _describe(
    app: Flask,
    rule: Rule,
    operation: Operation,
    schemas: Mapping[tuple[str, str], Any],
    definitions: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the operation object of a route."""
    endpoint = rule.endpoint.rpartition(".")[2]
    summary, _, more = inspect.cleandoc(operation.view.__doc__ or "").partition("\n")
    parameters = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": schemas[endpoint, name],
        }
        for name in operation.path
    ]
    if (rule.methods or set()) & set(idempotency.METHODS):
        parameters.append(IDEMPOTENCY_KEY)
    if operation.query:
        parameters += _query(schemas[endpoint, QUERY], definitions)
    described = {
        "operationId": endpoint,
        "summary": summary.removesuffix("."),
        "description": more.strip(),
        "parameters": parameters,
        "requestBody": operation.body
        and {"required": True, "content": _json(schemas[endpoint, BODY])},
    }
    return {name: value for name, value in described.items() if value} | {
        "responses": _responses(app, rule, operation, schemas),
        "security": _security(app, rule.endpoint),
    }


def _query(schema: Any, definitions: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the fields of the model of a query string as parameters."""
    while "$ref" in schema:
        schema = definitions[schema["$ref"].removeprefix(SCHEMAS)]
    return [
        {
            "name": name,
            "in": "query",
            "required": name in schema.get("required", ()),
            "schema": _without_null(field),
        }
        for name, field in schema.get("properties", {}).items()
    ]


def _without_null(field: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a parameter: it may be left out, but not be null."""
    kinds = [kind for kind in field.get("anyOf", ()) if kind != {"type": "null"}]
    if len(kinds) != 1 or len(kinds) == len(field["anyOf"]):
        return field
    others = {name: value for name, value in field.items() if name != "anyOf"}
    if others.get("default", 0) is None:
        del others["default"]
    return {**kinds[0], **others}


def _responses(
    app: Flask,
    rule: Rule,
    operation: Operation,
    schemas: Mapping[tuple[str, str], Any],
) -> dict[str, Any]:
    endpoint = rule.endpoint.rpartition(".")[2]
    success: dict[str, Any] = {"description": HTTPStatus(operation.status).phrase}
    if operation.result:
        success["content"] = _json(schemas[endpoint, RETURN])
    statuses = {*operation.errors, *_errors(app, rule, operation)}
    return {
        str(operation.status): success,
        **{str(status): PROBLEM for status in sorted(statuses)},
        "default": PROBLEM,
    }


def _errors(app: Flask, rule: Rule, operation: Operation) -> Iterator[int]:
    """Yield the statuses of the errors that the base responds with."""
    if access.declared_for(app, rule.endpoint) != access.PUBLIC:
        yield from (401, 403)
    if operation.path or (operation.query and issubclass(operation.query, Page)):
        yield 404
    if operation.body:
        yield from (400, 413, 415)
    if operation.body or operation.query:
        yield 422
    if (rule.methods or set()) & set(idempotency.METHODS):
        yield from (400, 409, 422)
    yield 429


def _security(app: Flask, endpoint: str) -> list[dict[str, list[str]]]:
    """Return who may call a view; tokens don't open what requires a session."""
    declared = access.declared_for(app, endpoint)
    if declared is None or declared == access.PUBLIC:
        return []
    if declared == access.SIGNED_IN or hasattr(app.view_functions[endpoint], "recent"):
        return [{"session": []}]
    return [{"token": [declared]}]


def _json(schema: Any) -> dict[str, Any]:
    return {JSON: {"schema": schema}}
