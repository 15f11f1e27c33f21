"""Lists in pages: no row is skipped or repeated, whatever happens in between."""

import re
from base64 import urlsafe_b64encode
from urllib.parse import quote

import pytest
from flask import Flask
from sqlalchemy import delete, insert
from werkzeug.test import TestResponse

from bulwark.database import db
from tests.bulwark.api.conftest import Script
from tests.bulwark.api.notes import rows


@pytest.fixture
def nine(notes: Flask) -> list[int]:
    """The ids of nine notes, three each with 1, 2 and 3 stars; most stars first."""
    with notes.app_context():
        values = [{"title": f"{n}", "stars": n % 3 + 1} for n in range(9)]
        added = db.session.execute(
            insert(rows).returning(rows.c.id, rows.c.stars), values
        )
        found = sorted(added.all(), key=lambda row: (row.stars, row.id), reverse=True)
        db.session.commit()
    return [row.id for row in found]


def ids(response: TestResponse) -> list[int]:
    assert response.status_code == 200, response.text
    return [note["id"] for note in response.get_json()]


def next_path(response: TestResponse) -> str | None:
    """Return the path of the next page, below the prefix."""
    found = re.fullmatch(
        r'<https://localhost/api/v1([^>]+)>; rel="next"',
        response.headers.get("Link", ""),
    )
    return found and found[1]


@pytest.mark.parametrize("limit", [1, 2, 3, 9, 10])
def test_the_links_lead_through_all_rows_in_order(
    script: Script, nine: list[int], limit: int
):
    path: str | None = f"/pages?limit={limit}"
    seen: list[int] = []
    while path:
        response = script.call("GET", path)
        seen += ids(response)
        assert len(response.get_json()) <= limit
        path = next_path(response)
    assert seen == nine


@pytest.mark.parametrize("title", ['a>; rel="next", <b', "ž", "a\r\nb", "a?b=1"])
def test_a_link_leads_to_the_same_path_whatever_it_contains(
    notes: Flask, script: Script, title: str
):
    with notes.app_context():
        values = [{"title": title, "stars": 1}] * 2
        db.session.execute(insert(rows), values)
        db.session.commit()
    first = script.call("GET", f"/pages/{quote(title, safe='')}?limit=1")
    first.headers["Link"].encode("latin-1")  # as servers send it
    path = next_path(first)
    assert path
    assert ids_only(script.call("GET", path)) == [ids_only(first)[0] + 1]


def ids_only(response: TestResponse) -> list[int]:
    assert response.status_code == 200, response.text
    found: list[int] = response.get_json()
    return found


def test_rows_that_come_and_go_move_no_other(
    notes: Flask, script: Script, nine: list[int]
):
    first = script.call("GET", "/pages?limit=4")
    with notes.app_context():
        db.session.execute(delete(rows).where(rows.c.id == nine[0]))
        db.session.execute(insert(rows).values(title="new", stars=5))
        db.session.commit()
    assert ids(script.call("GET", next_path(first) or "")) == nine[4:8]


def test_times_are_compared_exactly(script: Script, nine: list[int]):
    first = script.call("GET", "/pages/by-time?limit=5")
    second = script.call("GET", next_path(first) or "")
    assert ids(first) + ids(second) == sorted(nine)
    assert next_path(second) is None


def test_other_parameters_stay_in_the_link(script: Script, nine: list[int]):
    response = script.call("GET", "/pages?limit=2&a=%3E%0D%0AX&a=2")
    assert "limit=2&a=%3E%0D%0AX&a=2&cursor=" in response.headers["Link"]


@pytest.mark.parametrize("limit", ["0", "201", "-1", "x", ""])
def test_a_page_has_a_maximum(script: Script, limit: str):
    assert script.call("GET", f"/pages?limit={limit}").status_code == 422


@pytest.mark.parametrize(
    "sent",
    [
        *("", "[]", "[1]", "[1, 2, 3]", "{}", "null", '["x", "y"]', "[[], 1]"),
        *("[null, null]", "[1, 1e999]", "[" * 200),
    ],
)
def test_a_cursor_that_is_not_from_a_link_is_refused(script: Script, sent: str):
    cursor = urlsafe_b64encode(sent.encode()).decode()
    assert script.call("GET", f"/pages?cursor={cursor}").status_code == 404


def test_a_cursor_that_is_not_encoded_is_refused(script: Script):
    for cursor in ("x", "%20", "'", "%E2%82%AC"):
        assert script.call("GET", f"/pages?cursor={cursor}").status_code == 404


@pytest.mark.parametrize("time", ["2026-11-30T12:00:00", "x", "9999-12-31T23:59-12:00"])
def test_a_cursor_with_a_time_that_does_not_fit_is_refused(script: Script, time: str):
    cursor = urlsafe_b64encode(f'["{time}", 1]'.encode()).decode()
    assert script.call("GET", f"/pages/by-time?cursor={cursor}").status_code == 404


def test_a_value_beyond_its_column_is_refused(script: Script):
    cursor = urlsafe_b64encode(f"[{10**30}, 1]".encode()).decode()
    assert script.call("GET", f"/pages?cursor={cursor}").status_code in (400, 404)
