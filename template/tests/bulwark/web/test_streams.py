"""Streamed bodies: an exception before the first chunk gets an error page."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask, Response, abort, current_app, stream_with_context
from sqlalchemy import select

from bulwark.database import db
from bulwark.identity.models import Role
from tests.bulwark.conftest import Written
from tests.bulwark.web.callers import FAULT, OUTAGES, PATH, Caller, Monitor, View

pytestmark = pytest.mark.usefixtures("production_errors")


def raises_before_the_first_chunk() -> Iterator[str]:
    raise LookupError("out of ink")
    yield "never sent"


def yields_a_number() -> Iterator[Any]:
    yield 5


def yields_a_surrogate() -> Iterator[str]:
    yield "\ud800"


def reads_a_missing_row() -> Iterator[str]:
    yield db.session.scalars(select(Role.name).where(Role.name == "nobody")).one()


STREAMS: list[View] = [
    raises_before_the_first_chunk,
    yields_a_number,
    yields_a_surrogate,
    reads_a_missing_row,
    lambda: Response(stream_with_context(raises_before_the_first_chunk())),
    lambda: Response(stream_with_context(reads_a_missing_row())),
]


def test_an_exception_before_the_first_chunk_is_one_of_the_view(
    monitor: Monitor,
    caller: Caller,
    serve: Callable[..., None],
    subtests: pytest.Subtests,
):
    for number, view in enumerate(STREAMS):
        with subtests.test(view.__name__, number=number):
            serve(caller, view)
            monitor.fails(caller)
    serve(caller, lambda: iter(["w", "e", "ll"]))
    assert monitor.get(caller, 200).text == "well"
    serve(caller, lambda: iter([]))
    assert monitor.get(caller, 200).text == ""


def test_a_stream_may_abort_before_its_first_chunk(
    monitor: Monitor, caller: Caller, serve: Callable[..., None]
):
    def refuses() -> Iterator[str]:
        abort(404)
        yield "never sent"

    def is_down() -> Iterator[str]:
        raise OUTAGES[0]
        yield "never sent"

    serve(caller, refuses)
    monitor.get(caller, 404)
    serve(caller, is_down)
    monitor.fails(caller, 503)


def test_a_stream_that_fails_is_closed_and_gets_one_response(
    monitor: Monitor,
    signed_in_user: Caller,
    app: Flask,
    serve: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
):
    closed = []

    def view() -> Response:
        response = Response(raises_before_the_first_chunk())
        response.call_on_close(lambda: closed.append(True))
        return response

    handlers = app.error_handler_spec[None][None]
    monkeypatch.setitem(
        handlers, LookupError, lambda _: Response(raises_before_the_first_chunk())
    )
    serve(signed_in_user, view)
    monitor.fails(signed_in_user)
    assert closed == [True]


def test_a_stream_may_have_a_context_of_its_own(
    monitor: Monitor, caller: Caller, app: Flask, serve: Callable[..., None]
):
    def body() -> Iterator[str]:
        with app.app_context():
            yield "first"
            yield current_app.name

    serve(caller, body)
    assert monitor.get(caller, 200).text == f"first{app.name}"


def test_only_the_first_chunk_is_generated_before_the_headers(
    monitor: Monitor, caller: Caller, serve: Callable[..., None]
):
    made = []

    def body() -> Iterator[str]:
        for part in ("first", "second", "third"):
            made.append(part)
            yield part

    serve(caller, body)
    response = monitor.get(caller, 200)
    assert made == ["first"]
    assert response.text == "firstsecondthird"
    made.clear()
    assert caller.visitor.client.head(PATH, headers=caller.headers).text == ""
    assert made == []


def test_an_exception_after_the_first_chunk_is_an_event(
    monitor: Monitor, caller: Caller, serve: Callable[..., None], written: Written
):
    def body() -> Iterator[str]:
        yield "first"
        raise LookupError("out of ink")

    serve(caller, body)
    before = monitor.counts()
    response = monitor.get(caller, 200)
    parts = response.iter_encoded()
    assert next(parts) == b"first"
    with pytest.raises(LookupError):  # the server closes the connection
        next(parts)
    lines = written.lines()
    assert [x["status"] for x in lines if x["event"] == "request"] == [200]
    (line,) = [line for line in lines if line["event"] == FAULT]
    assert (line["method"], line["route"]) == ("GET", PATH)
    assert line["request_id"] == response.headers["X-Request-ID"]
    more = monitor.counts() - before
    assert {k: n for k, n in more.items() if k[0] == "http_requests_total"} == {
        ("http_requests_total", "GET", PATH, "200"): 1
    }
    assert more["security_events_total", FAULT] == 1


def test_a_streamed_body_is_closed(
    caller: Caller, serve: Callable[..., None], app: Flask
):
    closed = []

    class Body:
        def __iter__(self) -> Iterator[str]:
            return iter(["all"])

        def close(self) -> None:
            closed.append(True)

    serve(caller, lambda: Response(Body()))
    response = caller.get()
    assert response.text == "all"
    response.close()
    assert closed == [True]
