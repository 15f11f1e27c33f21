"""Database errors: a value from the request is a client error, any other is not."""

import json
from typing import Any

import pytest
from flask import Flask

from tests.bulwark.web.team import hint, post
from tests.conftest import Visitor


def is_postgresql(app: Flask) -> bool:
    url: Any = app.config["SQLALCHEMY_DATABASE_URI"]
    return bool(url.get_backend_name() == "postgresql")


@pytest.mark.parametrize(
    "sent",
    [
        {"title": "x" * 201},
        {"title": f"  {'X' * 201}"},
        {"stars": 2**31},
        {"stars": 2**63 - 1},
        {"stars": "many"},
        {"stars": 10**20},
        {"open": "maybe"},
        {"open": 5},
        {"title": {"a": 1}},
        {"stars": [1]},
    ],
    ids=str,
)
def test_a_value_that_a_column_can_not_hold_is_no_server_error(
    team: Visitor, sent: Any
):
    """SQLite's columns hold more, which is no error there."""
    for options in ({"json": sent}, {"data": sent}):
        assert post(team, "/notes", **options).status_code in (200, 400)


def test_a_text_too_long_for_postgresql_is_400(team: Visitor, team_app: Flask):
    response = post(team, "/notes", data={"title": "x" * 201})
    if is_postgresql(team_app):
        assert hint(response) == "A value is too long, too large, or of the wrong type."
    else:
        assert response.status_code == 200
    assert post(team, "/notes", data={"title": "good"}).status_code == 200


def test_a_number_too_large_for_sqlite_is_400(team: Visitor):
    response = team.get(
        f"/notes?stars={10**20}", headers={"Accept": "application/json"}
    )
    assert response.status_code == 200 or "too large" in hint(response)
    assert post(team, "/notes", json={"title": {"a": 1}}).status_code == 400
    assert post(team, "/notes", json={"open": "maybe"}).status_code == 400


def test_a_value_that_is_not_from_the_request_is_a_server_error(team: Visitor):
    assert post(team, "/notes/too-long", data={"title": "good"}).status_code == 500
    assert post(team, "/notes/too-long", data={"title": "y" * 201}).status_code == 500


def test_a_number_too_large_to_calculate_with_is_400(team: Visitor):
    headers = {"Accept": "application/json"}
    for page in (2**63 - 1, 10**20):
        response = team.get(f"/notes/pages/1?page={page}", headers=headers)
        assert hint(response) == "A number is too large."
    assert team.get("/notes/pages/1?page=2").status_code == 200
    assert team.get(f"/notes/pages/{2**62}").status_code == 404


NULLS: list[Any] = [{"shelf": None}, {"shelf": None, "title": "None"}]


@pytest.mark.parametrize("sent", NULLS, ids=str)
def test_null_where_a_column_needs_a_value_is_400(team: Visitor, sent: Any):
    assert hint(post(team, "/notes", json=sent)) == "Send a value instead of null."
    assert post(team, "/notes", json={"title": None}).status_code == 200


@pytest.mark.parametrize("sent", [{}, {"shelf": "None"}, {"a": ["null"]}, [], 0, None])
def test_null_that_is_not_from_the_request_is_a_server_error(team: Visitor, sent: Any):
    body = {"data": json.dumps(sent), "content_type": "application/json"}
    assert post(team, "/notes/required", **body).status_code == 500
    assert post(team, "/notes/required", data={"shelf": ""}).status_code == 500


def test_null_anywhere_in_the_json_may_be_the_cause(team: Visitor):
    for sent in ({"note": {"place": None}}, [None], [[{"a": [None]}]]):
        response = post(team, "/notes/required", json=sent)
        assert hint(response) == "Send a value instead of null."
