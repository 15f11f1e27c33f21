"""Typed views: what does not fit the annotations reaches neither view nor client."""

import subprocess
import sys
import tomllib
from typing import Any

import pytest
from flask import Flask
from pydantic import BaseModel

from bulwark import Api
from bulwark.api.operations import UntypedViewError
from tests.bulwark.api.conftest import Script
from tests.conftest import ROOT, Visitor

NOTE = {"title": "Milk", "stars": 3}
LOADED = "import sys, bulwark; print('pydantic' in sys.modules)"


def test_a_result_has_the_declared_fields_only(script: Script):
    response = script.call("POST", "/notes", json=NOTE | {"id": 5, "admin": True})
    assert response.status_code == 201
    assert response.mimetype == "application/json"
    assert response.get_json().keys() == {"id", "title", "stars"}
    path = f"/notes/{response.get_json()['id']}"
    assert script.call("GET", path).get_json() == response.get_json()


@pytest.mark.filterwarnings("ignore")
def test_a_result_that_was_not_declared_is_not_sent(stranger: Visitor):
    response = stranger.get("/api/v1/leak")
    assert response.status_code == 500
    assert "secret" not in response.text


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/title"),
        ({"title": ""}, "/title"),
        ({"title": "x" * 201}, "/title"),
        ({"title": 5}, "/title"),
        (NOTE | {"stars": "3"}, "/stars"),
        (NOTE | {"stars": True}, "/stars"),
        (NOTE | {"stars": 6}, "/stars"),
        (NOTE | {"due": 1764500000}, "/due"),
        ([NOTE], ""),
        ("text", ""),
    ],
)
def test_a_body_that_does_not_fit_is_refused_with_its_place(
    script: Script, body: Any, pointer: str
):
    response = script.call("POST", "/notes", json=body)
    assert response.status_code == 422
    (error,) = response.get_json()["errors"]
    assert error["pointer"] == pointer
    assert error["detail"]
    assert script.call("GET", "/notes").get_json() == []


def test_a_place_is_a_json_pointer(script: Script):
    body = [NOTE, {"title": "x", "stars": None}]
    response = script.call("POST", "/notes/import", json=body)
    assert response.get_json()["errors"][0]["pointer"] == "/1/stars"


def test_an_error_repeats_no_value_of_the_request(script: Script):
    for body in ({"title": "x", "due": "<script>"}, {"title": ["<script>"]}):
        response = script.call("POST", "/notes", json=body)
        assert response.status_code == 422
        assert "script" not in response.text
    response = script.call("PUT", "/shape", json={"kind": "<script>"})
    assert response.status_code == 422
    assert "script" not in response.text


@pytest.mark.parametrize("body", [["x"] * 5000, [{"x" * 5000: "y"}] * 20])
def test_the_errors_of_a_large_body_are_a_short_response(
    script: Script, body: list[Any]
):
    response = script.call("PUT", "/tags", json=body)
    assert response.status_code == 422
    assert len(response.data) < 20_000


@pytest.mark.parametrize(
    "text", ['{"title": "\\u0000"}', '{"title": "\\ud800"}', '{"title": NaN}']
)
def test_what_databases_cannot_store_is_refused(script: Script, text: str):
    options = {"data": text, "content_type": "application/json"}
    assert script.call("POST", "/notes", **options).status_code == 400


def test_a_query_string_is_read_into_its_types(script: Script):
    for stars in (1, 2, 3):
        script.call("POST", "/notes", json=NOTE | {"stars": stars})
    found = script.call("GET", "/notes?least=2").get_json()
    assert [note["stars"] for note in found] == [2, 3]
    found = script.call("GET", "/notes?stars=1&stars=3").get_json()
    assert [note["stars"] for note in found] == [1, 3]
    assert script.call("GET", "/notes?title=y").get_json() == []
    assert len(script.call("GET", "/notes?title=y&title=Milk").get_json()) == 3


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("least=-1", "least"),
        ("least=1&least=2", "least"),
        ("least[]=1&least=x", "least"),
        ("stars=1&stars=x", "stars.1"),
    ],
)
def test_a_query_string_that_does_not_fit_is_refused_with_its_name(
    script: Script, query: str, parameter: str
):
    response = script.call("GET", f"/notes?{query}")
    assert response.status_code == 422
    assert response.get_json()["errors"][0]["parameter"] == parameter


def untyped_body(body) -> None:
    """Take anything."""


def untyped_result(body: BaseModel):
    """Return anything."""


def untyped_query(query: dict[str, str]) -> None:
    """Take any query."""


@pytest.mark.parametrize("view", [untyped_body, untyped_result, untyped_query])
def test_a_view_without_types_stops_the_start(view: Any):
    api = Api("untyped", __name__, url_prefix="/untyped", title="Untyped")
    with pytest.raises(UntypedViewError, match=f"{view.__name__}: annotate"):
        api.post("/")(view)


def test_a_service_without_an_api_imports_no_pydantic():
    command = [sys.executable, "-c", LOADED]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_service_with_an_api_installs_pydantic_in_production(app: Flask):
    content = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    listed = " ".join(content["project"]["dependencies"])
    if any(isinstance(blueprint, Api) for blueprint in app.blueprints.values()):
        assert "pydantic" in listed, "run: bin/uv add pydantic"
