"""Errors of an API: problem details for each status, whatever the request accepts."""

import json
from typing import Any

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from tests.bulwark.api.conftest import ZOE, Script
from tests.conftest import Visitor, add_person
from tests.support import bearer, make_token

BROWSER = {"Accept": "text/html,*/*;q=0.8"}
NOTE = {"title": "Milk"}


def problem(response: TestResponse) -> dict[str, Any]:
    """Return the problem details, which match the response."""
    assert response.mimetype == "application/problem+json"
    found: dict[str, Any] = json.loads(response.text)
    assert found["status"] == response.status_code
    assert found["request_id"] == response.headers["X-Request-ID"]
    assert found["type"] == "about:blank"
    assert found["title"]
    return found


@pytest.mark.parametrize("headers", [{}, BROWSER], ids=["program", "browser"])
@pytest.mark.parametrize(
    ("status", "method", "path", "options"),
    [
        (400, "POST", "/notes", {"data": "{", "content_type": "application/json"}),
        (403, "DELETE", "/notes/1", {}),
        (404, "GET", "/nothing", {}),
        (404, "GET", "/notes/1", {}),
        (404, "GET", "/notes/0", {}),
        (404, "GET", "/notes/99999999999999999999", {}),
        (405, "PUT", "/notes", {"json": NOTE}),
        (409, "POST", "/notes/1/lock", {}),
        (413, "POST", "/notes/import", {"json": [NOTE | {"title": "x" * 1001}]}),
        (415, "POST", "/notes", {"data": "a=b"}),
        (422, "POST", "/notes", {"json": {}}),
        (422, "GET", "/notes?least=few", {}),
        (500, "GET", "/broken", {}),
    ],
)
def test_each_error_is_a_problem(
    script: Script,
    status: int,
    method: str,
    path: str,
    options: dict[str, Any],
    headers: dict[str, str],
):
    response = script.call(method, path, headers=headers, **options)
    assert response.status_code == status
    assert problem(response)["detail"]


@pytest.mark.parametrize("headers", [{}, BROWSER], ids=["program", "browser"])
@pytest.mark.parametrize("path", ["/api/v1/notes", "/api/v1/mine"])
def test_no_one_is_redirected_to_sign_in(
    stranger: Visitor, path: str, headers: dict[str, str]
):
    response = stranger.get(path, headers=headers)
    assert response.status_code == 401
    assert problem(response)["detail"] == "Please sign in"
    assert response.headers["WWW-Authenticate"] == "Bearer"


def test_a_prefix_may_have_variable_parts(script: Script, stranger: Visitor):
    prefix = "/teams/red/api"
    assert problem(stranger.get(f"{prefix}/name", headers=BROWSER))["status"] == 401
    assert problem(stranger.get(f"{prefix}/nothing", headers=BROWSER))["status"] == 404
    for path in ("/openapi.json", "/docs"):
        assert stranger.get(prefix + path).status_code == 200
    response = script.client.get(f"{prefix}/name", headers=bearer(script.token))
    assert response.get_json() == "red"
    for path in ("/teams/red/apis", "/teams/red/blue/api"):
        assert stranger.get(path, headers=BROWSER).mimetype == "text/html"


def test_a_token_that_is_not_valid_is_refused_as_such(script: Script):
    script.token = "bwk_" + "x" * 43
    response = script.call("GET", "/notes")
    assert response.status_code == 401
    assert problem(response)["detail"] == "This access token is not valid"
    assert response.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'


def test_a_token_without_the_permission_is_refused(notes: Flask, script: Script):
    script.token = make_token(notes, ZOE, "notes:read")
    assert script.call("GET", "/notes").status_code == 200
    response = script.call("POST", "/notes", json=NOTE)
    assert response.status_code == 403
    assert problem(response)["detail"] == "You don't have permission"


def test_a_limit_is_a_problem_with_the_time_to_wait(script: Script):
    responses = [script.call("POST", "/notes/import", json=[]) for _ in range(3)]
    assert [r.status_code for r in responses] == [204, 204, 429]
    assert "Try again in" in problem(responses[-1])["detail"]
    assert int(responses[-1].headers["Retry-After"]) > 0


def test_a_change_without_a_token_is_refused_as_such(stranger: Visitor):
    response = stranger.client.post("/api/v1/notes", json=NOTE)
    assert response.status_code == 401
    assert problem(response)["detail"] == "Please sign in"


def test_a_form_of_another_site_is_refused_as_a_problem(
    notes: Flask, stranger: Visitor
):
    stranger.sign_in(add_person(notes, ZOE))
    response = stranger.client.post("/api/v1/notes", json=NOTE)
    assert response.status_code == 400
    assert "form has expired" in problem(response)["detail"]


def test_a_recent_sign_in_is_required_without_a_redirect(
    notes: Flask, stranger: Visitor, monkeypatch: pytest.MonkeyPatch
):
    stranger.sign_in(add_person(notes, ZOE))
    assert stranger.get("/api/v1/mine").get_json() == ["mine"]
    monkeypatch.setattr("bulwark.web.access._is_recent", lambda: False)
    response = stranger.get("/api/v1/mine", headers=BROWSER)
    assert response.status_code == 401
    assert problem(response)["detail"] == "Please sign in again, then retry"


def test_a_fault_reveals_nothing(script: Script):
    response = script.call("GET", "/broken")
    assert "4711" not in response.text
    assert "RuntimeError" not in response.text


def test_a_fault_of_the_error_response_is_a_problem(
    script: Script, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("bulwark.web.errors._detail", None)
    response = script.call("GET", "/broken")
    assert response.status_code == 500
    assert problem(response)["detail"]


def test_pages_keep_their_errors(stranger: Visitor):
    for path in ("/api", "/api/v10", "/nowhere"):
        response = stranger.get(path, headers=BROWSER)
        assert response.status_code == 404
        assert response.mimetype == "text/html"
    assert stranger.get("/account", headers=BROWSER).status_code == 302


def test_without_the_setting_pages_of_no_other_site_read_the_api(script: Script):
    headers = {"Origin": "https://app.example.com"}
    response = script.call("GET", "/notes", headers=headers)
    assert response.status_code == 200
    assert "Access-Control-Allow-Origin" not in response.headers
