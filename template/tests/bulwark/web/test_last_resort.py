"""The last resort: a broken error page is replaced, and nothing escapes."""

from collections.abc import Callable, Iterator

import pytest
from flask import Flask, abort
from jinja2 import ChoiceLoader, DictLoader

from tests.bulwark.web.callers import (
    BREAKS,
    FAULT,
    HEADERS,
    OUTAGES,
    TITLES,
    Caller,
    Monitor,
    View,
    fail,
    fail_with,
    flushes,
    raises,
)

pytestmark = pytest.mark.usefixtures("production_errors")


@pytest.fixture
def broken_page(app: Flask, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Break the error page, as a team may break its own."""
    own = DictLoader({"bulwark/error.html": BREAKS})
    loaders = ChoiceLoader([own, app.jinja_env.loader])  # type: ignore[list-item]
    monkeypatch.setattr(app.jinja_env, "loader", loaders)
    monkeypatch.setattr(app.jinja_env, "cache", {})
    yield
    app.jinja_env.cache = {}


@pytest.mark.usefixtures("broken_page")
@pytest.mark.parametrize("view", [lambda: abort(404), fail, flushes])
def test_a_broken_error_page_is_replaced(
    monitor: Monitor, signed_in_user: Caller, serve: Callable[..., None], view: View
):
    serve(signed_in_user, view)
    monitor.fails(signed_in_user)


@pytest.mark.usefixtures("broken_page")
def test_a_broken_error_page_hides_no_outage(
    monitor: Monitor, signed_in_user: Caller, serve: Callable[..., None]
):
    serve(signed_in_user, raises(OUTAGES[0]))
    monitor.fails(signed_in_user, 503)


def test_an_exception_that_escapes_flask_gets_a_response(
    monitor: Monitor,
    signed_in_user: Caller,
    app: Flask,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(app, "full_dispatch_request", fail)
    monkeypatch.setattr(app, "handle_exception", fail_with)
    response = signed_in_user.get()
    assert response.status_code == 500
    assert TITLES[500] in response.text
    assert response.headers["X-Request-ID"] in response.text
    assert HEADERS.items() <= dict(response.headers).items()
    lines = [x["event"] for x in monitor.written.lines()]
    assert lines[-2:] == [FAULT, "request"]
