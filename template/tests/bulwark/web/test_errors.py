"""Errors: a page or JSON in the service's style, with the id, and no details."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from flask import Flask, abort, make_response
from sqlalchemy.exc import OperationalError

from tests.conftest import Visitor


@pytest.mark.parametrize(
    ("method", "path", "status", "expected"),
    [
        ("get", "/nowhere", 404, "Page not found"),
        ("get", "/logout", 405, "Method not allowed"),
        ("post", "/login", 400, "This form has expired"),
    ],
)
def test_an_error_is_a_page_or_json_with_the_id_of_the_request(
    visitor: Visitor, method: str, path: str, status: int, expected: str
):
    page = getattr(visitor.client, method)(path)
    assert page.status_code == status
    assert expected in page.get_data(as_text=True)
    assert page.headers["X-Request-ID"] in page.get_data(as_text=True)
    response = getattr(visitor.client, method)(
        path, headers={"Accept": "application/json"}
    )
    assert response.status_code == status
    assert response.get_json()["error"] == expected
    assert response.get_json()["request_id"] == response.headers["X-Request-ID"]


def test_a_body_that_is_too_large_is_refused(visitor: Visitor):
    data = {"email": "a" * (1024 * 1024 + 1), "csrf_token": visitor.csrf_token()}
    assert visitor.client.post("/login", data=data).status_code == 413


def test_the_page_of_a_refused_form_links_back_to_it(visitor: Visitor):
    back = '<a href="{}">Back to the form</a>'
    assert back.format("/login") in visitor.client.post("/login").text
    only_post = visitor.client.post("/logout")
    assert only_post.status_code == 400
    assert "Back to the form" not in only_post.text
    assert "Back to the form" not in visitor.get("/nowhere").text


def test_a_405_names_the_allowed_methods(visitor: Visitor):
    assert "POST" in visitor.get("/logout").headers["Allow"]


@pytest.mark.usefixtures("public_sign_up")
@pytest.mark.parametrize(
    "body", ["[]", "1", '"x"', "{", "[" * 4000, '{"email": NaN}', '{"email": []}']
)
@pytest.mark.parametrize("path", ["/login", "/register", "/reset"])
def test_json_of_the_wrong_shape_is_the_callers_fault(
    visitor: Visitor, path: str, body: str
):
    token = visitor.csrf_token()
    response = visitor.client.post(
        path,
        data=body,
        content_type="application/json",
        headers={"X-CSRFToken": token, "Referer": "https://localhost/login"},
    )
    assert response.status_code in (200, 400)


def test_a_view_may_answer_with_a_response_and_with_words_of_its_own(
    visitor: Visitor, app: Flask, monkeypatch: pytest.MonkeyPatch
):
    def own_response() -> None:
        abort(make_response("own", 418))

    def own_words() -> None:
        abort(409, "This invoice was sent already.")

    for view, status, expected in (
        (own_response, 418, "own"),
        (own_words, 409, "invoice"),
    ):
        view.access = "public"  # type: ignore[attr-defined]
        monkeypatch.setitem(app.view_functions, "health.live", view)
        response = visitor.get("/healthz")
        assert response.status_code == status
        assert expected in response.get_data(as_text=True)


def locked(folder: Path) -> sqlite3.OperationalError:
    """Return the error of SQLite during another write."""
    path = folder / "locked.db"
    with closing(sqlite3.connect(path)) as one, closing(sqlite3.connect(path)) as other:
        one.execute("BEGIN EXCLUSIVE")
        other.execute("PRAGMA busy_timeout = 0")
        with pytest.raises(sqlite3.OperationalError) as caught:
            other.execute("CREATE TABLE names (name)")
    return caught.value


def wrong(_: Path) -> sqlite3.OperationalError:
    """Return what SQLite raises for an invalid statement."""
    with (
        closing(sqlite3.connect(":memory:")) as connection,
        pytest.raises(sqlite3.OperationalError) as caught,
    ):
        connection.execute("SELECT secret FROM nowhere")
    return caught.value


@pytest.mark.parametrize(
    ("reason", "status"),
    [
        (lambda _: Exception("connection refused"), 503),
        (locked, 503),
        (wrong, 500),
    ],
)
def test_an_outage_has_retry_after_and_an_exception_is_one_event(
    visitor: Visitor,
    app: Flask,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    reason,
    status: int,
):
    def view() -> None:
        raise OperationalError("SELECT secret", {}, reason(tmp_path))

    view.access = "public"  # type: ignore[attr-defined]
    monkeypatch.setitem(app.view_functions, "health.live", view)
    monkeypatch.setitem(app.config, "PROPAGATE_EXCEPTIONS", False)
    response = visitor.get("/healthz")
    assert response.status_code == status
    assert response.headers.get("Retry-After") == ("5" if status == 503 else None)
    assert "secret" not in response.text
