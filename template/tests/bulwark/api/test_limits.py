"""Rate limits of an API: one token can't use up what another one has."""

import re
from pathlib import Path

from flask import Flask
from werkzeug.test import TestResponse

from tests.bulwark.api.conftest import ZOE, Script
from tests.bulwark.api.notes import EVERYONE
from tests.conftest import Visitor, add_person
from tests.support import make_token

LIMIT = 20


def remaining(response: TestResponse) -> int:
    """Return how many requests are left in the limit of the whole API."""
    found = re.search(r'"20-per-60s";r=(\d+);t=\d+', response.headers["RateLimit"])
    assert found
    return int(found[1])


def test_each_response_shows_the_limit(script: Script):
    first, second = script.call("GET", "/notes"), script.call("GET", "/notes/1")
    assert first.headers["RateLimit-Policy"] == '"20-per-60s";q=20;w=60'
    assert (remaining(first), remaining(second)) == (LIMIT - 1, LIMIT - 2)


def test_a_view_may_have_a_limit_of_its_own_too(script: Script):
    response = script.call("POST", "/notes/import", json=[])
    assert '"2-per-3600s";q=2;w=3600' in response.headers["RateLimit-Policy"]
    assert remaining(response) == LIMIT - 1


def test_each_token_has_its_own_limit(notes: Flask, script: Script, mailbox: Path):
    statuses = [script.call("GET", "/notes").status_code for _ in range(LIMIT + 1)]
    assert statuses == [200] * LIMIT + [429]
    refused = script.call("POST", "/notes", json={"title": "x"})
    assert (refused.status_code, remaining(refused)) == (429, 0)
    assert int(refused.headers["Retry-After"]) > 0
    for email in (ZOE, add_person(notes, "ada@example.org")):
        other = Script(notes, mailbox, make_token(notes, email, *EVERYONE))
        assert remaining(other.call("GET", "/notes")) == LIMIT - 1


def test_what_is_refused_before_a_view_counts_for_no_one(
    script: Script, stranger: Visitor
):
    for _ in range(LIMIT + 1):
        assert stranger.get("/api/v1/notes").status_code == 401
    assert remaining(script.call("GET", "/notes")) == LIMIT - 1


def test_invalid_requests_count(script: Script):
    script.call("POST", "/notes", json={})
    assert remaining(script.call("GET", "/notes")) == LIMIT - 2


def test_a_user_and_a_visitor_have_their_own_limits(script: Script, stranger: Visitor):
    script.call("GET", "/notes")
    visited = stranger.get("/api/v1/broken")
    assert remaining(visited) == LIMIT - 1
    stranger.sign_in(ZOE)
    assert remaining(stranger.get("/api/v1/notes")) == LIMIT - 1
