"""The OpenAPI document and its page: they show what the code declares."""

import json
import re
from typing import Any

import pytest
from flask import Flask
from jsonschema import Draft202012Validator

from bulwark import Api, permission, public
from bulwark.web import access
from tests.bulwark.api.conftest import ZOE, Script
from tests.conftest import Visitor, add_person

DOCUMENT, PAGE = "/api/v1/openapi.json", "/api/v1/docs"


@pytest.fixture
def document(notes: Flask, stranger: Visitor) -> dict[str, Any]:
    """The document, as a signed-in user reads it."""
    stranger.sign_in(add_person(notes, ZOE))
    found: dict[str, Any] = stranger.get(DOCUMENT).get_json()
    return found


def operations(document: dict[str, Any]) -> dict[str, Any]:
    return {
        operation["operationId"]: operation
        for methods in document["paths"].values()
        for operation in methods.values()
    }


def test_each_route_is_described_once(document: dict[str, Any], notes: Flask):
    routes = {
        (re.sub(r"<[^<>]*?(\w+)>", r"{\1}", rule.rule), method.lower())
        for rule in notes.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if rule.rule.startswith("/api/v1/") and rule.rule not in (DOCUMENT, PAGE)
    }
    paths = document["paths"].items()
    described = [(path, method) for path, methods in paths for method in methods]
    assert sorted(described) == sorted(routes)
    assert document["openapi"].startswith("3.1.")
    assert document["info"] == {"title": "Notes", "version": "1"}


def test_each_reference_and_each_schema_is_valid(document: dict[str, Any]):
    for reference in re.findall(r'"\$ref": "#/([^"]+)"', json.dumps(document)):
        found: Any = document
        for part in reference.split("/"):
            found = found[part]
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


def test_the_model_of_a_query_is_described_only_as_parameters(document: dict[str, Any]):
    for name in document["components"]["schemas"]:
        assert f'"#/components/schemas/{name}"' in json.dumps(document), name


def test_what_a_view_takes_and_returns_is_described(document: dict[str, Any]):
    add, find = operations(document)["add"], operations(document)["find"]
    assert add["summary"] == "Add a note"
    body = add["requestBody"]["content"]["application/json"]["schema"]
    assert body == {"$ref": "#/components/schemas/NewNote"}
    assert {"201", "400", "401", "403", "413", "415", "422"} <= add["responses"].keys()
    assert [(p["name"], p["in"], p["required"]) for p in find["parameters"]] == [
        ("stars", "query", False),
        ("least", "query", False),
        ("title", "query", False),
    ]
    assert "409" in operations(document)["lock"]["responses"]
    path = operations(document)["one"]["parameters"][0]
    assert (path["in"], path["schema"]["maximum"]) == ("path", 2**31 - 1)


def test_a_text_in_a_request_has_no_nul(document: dict[str, Any], stranger: Visitor):
    schemas = document["components"]["schemas"]
    sent, received = schemas["NewNote"], schemas["Note"]
    assert re.search(sent["properties"]["title"]["pattern"], "Milk")
    assert not re.search(sent["properties"]["title"]["pattern"], "Milk\0")
    assert "pattern" not in received["properties"]["title"]
    assert "u0000" not in stranger.get(PAGE).text


def test_a_parameter_that_may_be_left_out_is_not_null(document: dict[str, Any]):
    cursor, limit = operations(document)["pages"]["parameters"]
    assert cursor["schema"]["type"] == "string"
    assert not {"default", "anyOf"} & cursor["schema"].keys()
    assert (limit["schema"]["default"], limit["required"]) == (50, False)


def test_who_may_call_a_view_is_described(document: dict[str, Any], notes: Flask):
    for name, operation in operations(document).items():
        declared = access.declared_for(notes, f"notes.{name}")
        expected: list[dict[str, list[str | None]]] = [{"token": [declared]}]
        if declared == access.PUBLIC:
            expected = []
        if declared == access.SIGNED_IN:
            expected = [{"session": []}]
        assert operation["security"] == expected, name


@pytest.mark.parametrize("path", [DOCUMENT, PAGE])
def test_only_users_read_the_documentation_by_default(
    stranger: Visitor, script: Script, path: str
):
    assert stranger.get(path).status_code == 401
    assert script.call("GET", path.removeprefix("/api/v1")).status_code == 403
    stranger.sign_in(ZOE)
    assert stranger.get(path).status_code == 200


@pytest.mark.parametrize(
    ("declaration", "declared"),
    [(public, access.PUBLIC), (permission("docs:read"), "docs:read")],
)
def test_the_documentation_declares_who_may_read_it(declaration: Any, declared: str):
    app = Flask("tests")
    api = Api("x", "x", url_prefix="/x", title="X", documentation=declaration)
    app.register_blueprint(api)
    for endpoint in ("x.openapi", "x.docs"):
        assert access.declared_for(app, endpoint) == declared


def test_the_page_fits_the_policy_and_shows_each_view(
    document: dict[str, Any], stranger: Visitor
):
    response = stranger.get(PAGE)
    assert re.findall(r"<script|<style| style=| on\w+=|https?://", response.text) == []
    for path, methods in document["paths"].items():
        for method in methods:
            assert f"{method.upper()} {path}" in response.text
    for reference in re.findall(r'href="#(\w+)"', response.text):
        assert reference == "main" or f'id="{reference}"' in response.text
