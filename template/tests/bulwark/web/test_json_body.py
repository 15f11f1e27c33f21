"""JSON bodies: what no database stores is rejected with a reason."""

import json
from typing import Any

import pytest
from flask import Flask

from bulwark.web.json_body import DEPTH
from tests.bulwark.web.team import hint, post
from tests.conftest import Visitor


@pytest.mark.parametrize("path", ["/login", "/notes", "/account"])
@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (r'{"title": "\u0000"}', "NUL"),
        (r'{"title": "\ud800"}', "surrogates"),
        (r'{"\udfff\ud800": 1}', "surrogates"),
        ('{"title": 1e999}', "infinite"),
        ('{"title": NaN}', "NaN"),
        ('{"title": 9223372036854775808}', "64 bits"),
        ('{"title": ' + "9" * 5000 + "}", "64 bits"),
        ("[" * (DEPTH + 2) + "]" * (DEPTH + 2), "Nest fewer"),
        ('{"a":' * 3000 + "1" + "}" * 3000, "Nest fewer"),
    ],
    ids=range(9),
)
def test_json_that_no_database_stores_is_400_with_a_reason(
    team: Visitor, path: str, body: str, reason: str
):
    if path == "/account":
        path = "/account/sessions/end-others"
    response = post(team, path, data=body, content_type="application/json")
    assert reason in hint(response)


@pytest.mark.parametrize("number", [2**63 - 1, -(2**63), 1.7e308, 0.1])
def test_a_number_that_a_database_stores_is_read(team: Visitor, number: float):
    response = post(team, "/drafts", json={"a": number})
    assert response.status_code == 200


def test_json_of_the_maximum_depth_is_read(team_app: Flask):
    assert team_app.json.loads("[" * DEPTH + "]" * DEPTH)


TYPED = {"title": "a", "stars": 1, "ratio": 0.5, "open": True, "note": None}


def test_json_of_the_declared_types_is_returned(team: Visitor):
    assert post(team, "/notes/typed", json=TYPED).get_json() == TYPED
    other = {"ratio": 1, "note": "b"}
    more = {"admin": True}
    sent = TYPED | other
    assert post(team, "/notes/typed", json=sent | more).get_json() == sent


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"title": None}, "Send title as text."),
        ({"title": 5}, "Send title as text."),
        ({"title": ["a"]}, "Send title as text."),
        ({"stars": True}, "Send stars as an integer."),
        ({"stars": 1.5}, "Send stars as an integer."),
        ({"stars": "1"}, "Send stars as an integer."),
        ({"ratio": "1"}, "Send ratio as a number."),
        ({"ratio": False}, "Send ratio as a number."),
        ({"open": 1}, "Send open as true or false."),
        ({"note": {}}, "Send note as text or null."),
    ],
)
def test_json_of_another_shape_is_400(team: Visitor, change: Any, reason: str):
    assert hint(post(team, "/notes/typed", json=TYPED | change)) == reason


@pytest.mark.parametrize("body", [[], 5, "x", None, [TYPED]])
def test_json_that_is_no_object_is_400(team: Visitor, body: Any):
    sent = {"data": json.dumps(body), "content_type": "application/json"}
    assert hint(post(team, "/notes/typed", **sent)) == "Send a JSON object."


def test_only_optional_fields_may_be_optional(team: Visitor):
    optional = {name: value for name, value in TYPED.items() if name != "note"}
    assert post(team, "/notes/typed", json=optional).get_json() == TYPED
    del optional["stars"]
    assert "stars" in hint(post(team, "/notes/typed", json=optional))
