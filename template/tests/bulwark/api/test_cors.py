"""Cross-origin requests: pages of the named sites call the API, others don't."""

from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from bulwark.settings import hosts
from bulwark.settings.fields import UnusableError
from tests.bulwark.api.conftest import ZOE, Script
from tests.bulwark.api.notes import EVERYONE, PERMISSIONS, api, rows
from tests.bulwark.team_app import running
from tests.conftest import Visitor, add_person

FRIEND, ENEMY = "https://app.example.com", "https://app.example.com.evil.example"
ALLOW = "Access-Control-Allow-Origin"


@pytest.fixture(scope="module")
def notes_app(
    whole_app: Flask, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Flask]:
    """The service with the API of notes, which pages of a friend may call."""
    folder = tmp_path_factory.mktemp("cors")
    options = {"permissions": PERMISSIONS, "everyone": EVERYONE}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("APP_CORS_ORIGINS", FRIEND)
        with running(whole_app, folder, [api], rows, **options) as app:
            yield app


def preflight(visitor: Visitor, origin: str, path: str = "/api/v1/notes") -> Any:
    headers = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type",
    }
    return visitor.client.options(path, headers=headers)


def allowed(response: TestResponse) -> bool:
    return ALLOW in response.headers


def test_a_preflight_of_a_friend_is_answered_without_a_token(stranger: Visitor):
    response = preflight(stranger, FRIEND)
    assert response.status_code == 204
    assert response.headers[ALLOW] == FRIEND
    methods = response.headers["Access-Control-Allow-Methods"].split(", ")
    assert {"GET", "POST"} <= set(methods)
    assert "DELETE" not in methods
    sent = response.headers["Access-Control-Allow-Headers"].lower()
    assert {"authorization", "content-type"} <= set(sent.split(", "))
    assert "Origin" in response.vary


@pytest.mark.parametrize(
    "origin", [ENEMY, "null", "http://app.example.com", f"{FRIEND}:8443"]
)
def test_a_preflight_of_anyone_else_is_refused(stranger: Visitor, origin: str):
    response = preflight(stranger, origin)
    assert response.status_code == 401
    assert not allowed(response)


@pytest.mark.parametrize("path", ["/login", "/account", "/api", "/api/v10"])
def test_nothing_but_the_api_is_open_to_a_friend(stranger: Visitor, path: str):
    assert not allowed(preflight(stranger, FRIEND, path))
    assert not allowed(stranger.get(path, headers={"Origin": FRIEND}))


def test_a_friend_reads_results_and_errors(script: Script):
    headers = {"Origin": FRIEND}
    added = script.call("POST", "/notes", json={"title": "Milk"}, headers=headers)
    assert added.status_code == 201
    for path, status in (("/notes", 200), ("/nothing", 404), ("/broken", 500)):
        response = script.call("GET", path, headers=headers)
        assert (response.status_code, allowed(response)) == (status, True)
        assert "Retry-After" in response.headers["Access-Control-Expose-Headers"]
    assert not allowed(script.call("GET", "/notes", headers={"Origin": ENEMY}))
    assert "Origin" in script.call("GET", "/notes").vary


def test_a_friend_never_uses_the_session_of_a_user(notes: Flask, stranger: Visitor):
    stranger.sign_in(add_person(notes, ZOE))
    response = stranger.get("/api/v1/notes", headers={"Origin": FRIEND})
    assert "Access-Control-Allow-Credentials" not in response.headers
    token = stranger.csrf_token("/reset")
    response = stranger.client.post(
        "/api/v1/notes",
        json={"title": "x"},
        headers={"X-CSRFToken": token, "Origin": FRIEND},
    )
    assert response.status_code == 400


@pytest.mark.parametrize(
    "text",
    [
        *("*", "null", "https://", "app.example.com", "http://app.example.com"),
        *("https://*.example.com", "https://a.example/path", "https://u@a.example"),
        *("https://a.example:x", "https://a.example?q", "ftp://a.example"),
    ],
)
def test_what_is_not_one_origin_stops_the_start(text: str):
    with pytest.raises(UnusableError):
        hosts.origins(text)


@pytest.mark.parametrize(
    ("text", "origins"),
    [
        ("", ()),
        (
            "https://A.example, https://b.example/",
            ("https://a.example", "https://b.example"),
        ),
        (
            "https://a.example:443 http://localhost:3000",
            ("https://a.example", "http://localhost:3000"),
        ),
        ("https://bücher.example", ("https://xn--bcher-kva.example",)),
    ],
)
def test_origins_are_written_as_browsers_send_them(text: str, origins: tuple[str, ...]):
    assert hosts.origins(text) == origins
