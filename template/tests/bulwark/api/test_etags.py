"""Entity tags: an unchanged result is not sent again, a changed one not overwritten."""

import pytest

from tests.bulwark.api.conftest import Script


@pytest.fixture
def path(script: Script) -> str:
    """The path of a note."""
    added = script.call("POST", "/notes", json={"title": "Milk"})
    return f"/notes/{added.get_json()['id']}"


def test_what_the_client_has_is_not_sent_again(script: Script, path: str):
    first = script.call("GET", path)
    again = script.call("GET", path, headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.text) == (304, "")
    script.call("PUT", path, json={"title": "Bread"})
    later = script.call("GET", path, headers={"If-None-Match": first.headers["ETag"]})
    assert (later.status_code, later.get_json()["title"]) == (200, "Bread")


def test_a_change_of_others_is_not_overwritten(script: Script, path: str):
    seen = {"If-Match": script.call("GET", path).headers["ETag"]}
    won = script.call("PUT", path, json={"title": "Bread"}, headers=seen)
    lost = script.call("PUT", path, json={"title": "Eggs"}, headers=seen)
    assert (won.status_code, lost.status_code) == (200, 412)
    assert lost.mimetype == "application/problem+json"
    assert script.call("GET", path).get_json()["title"] == "Bread"


def test_a_view_may_require_what_the_client_read(script: Script, path: str):
    five = {"title": "Bread", "stars": 5}
    assert script.call("PUT", path, json=five).status_code == 428
    seen = {"If-Match": script.call("GET", path).headers["ETag"]}
    assert script.call("PUT", path, json=five, headers=seen).status_code == 200


@pytest.mark.parametrize("tag", ['"x"', "x", '"', "", "W/"])
def test_an_unknown_tag_matches_nothing(script: Script, path: str, tag: str):
    headers = {"If-Match": tag}
    changed = script.call("PUT", path, json={"title": "x"}, headers=headers)
    assert changed.status_code == 412


def test_errors_and_other_methods_have_no_tag(script: Script, path: str):
    assert "ETag" not in script.call("GET", "/notes/0").headers
    assert "ETag" not in script.call("POST", "/notes", json={"title": "x"}).headers
