"""Errors: a page or JSON in the service's style, with the id, and no details."""

import pytest
from flask import Flask, abort, make_response

from tests.conftest import Visitor


@pytest.mark.parametrize(
    ("method", "path", "status", "said"),
    [
        ("get", "/nowhere", 404, "There is no such page"),
        ("get", "/logout", 405, "This page does not do that"),
        ("post", "/login", 400, "This form is too old"),
    ],
)
def test_an_error_is_a_page_or_json_with_the_id_of_the_request(
    visitor: Visitor, method: str, path: str, status: int, said: str
):
    page = getattr(visitor.client, method)(path)
    assert page.status_code == status
    assert said in page.get_data(as_text=True)
    assert page.headers["X-Request-ID"] in page.get_data(as_text=True)
    answer = getattr(visitor.client, method)(
        path, headers={"Accept": "application/json"}
    )
    assert answer.status_code == status
    assert answer.get_json()["error"] == said
    assert answer.get_json()["request_id"] == answer.headers["X-Request-ID"]


def test_a_body_that_is_too_large_is_refused(visitor: Visitor):
    data = {"email": "a" * (1024 * 1024 + 1), "csrf_token": visitor.csrf_token()}
    assert visitor.client.post("/login", data=data).status_code == 413


def test_a_405_names_the_allowed_methods(visitor: Visitor):
    assert "POST" in visitor.get("/logout").headers["Allow"]


@pytest.mark.parametrize(
    "body", ["[]", "1", '"x"', "{", "[" * 100_000, '{"email": NaN}', '{"email": []}']
)
@pytest.mark.parametrize("path", ["/login", "/register", "/reset"])
def test_json_of_the_wrong_shape_is_the_callers_fault(
    visitor: Visitor, path: str, body: str
):
    token = visitor.csrf_token()
    answer = visitor.client.post(
        path,
        data=body,
        content_type="application/json",
        headers={"X-CSRFToken": token, "Referer": "https://localhost/login"},
    )
    assert answer.status_code in (200, 400)


def test_a_view_may_answer_with_a_response_and_with_words_of_its_own(
    visitor: Visitor, app: Flask, monkeypatch: pytest.MonkeyPatch
):
    def own_response() -> None:
        abort(make_response("own", 418))

    def own_words() -> None:
        abort(409, "This invoice was sent already.")

    for view, status, said in ((own_response, 418, "own"), (own_words, 409, "invoice")):
        view.access = "public"  # type: ignore[attr-defined]
        monkeypatch.setitem(app.view_functions, "health.live", view)
        answer = visitor.get("/healthz")
        assert answer.status_code == status
        assert said in answer.get_data(as_text=True)
