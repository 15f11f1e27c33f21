"""Outages of the database: the response is 503, and the session is kept."""

import sqlite3
from collections.abc import Callable

import psycopg
import pytest
from flask import Flask, g, session
from sqlalchemy import exc, text
from sqlalchemy.orm import Session

from bulwark.database import db, rows
from bulwark.identity import session_store
from tests.bulwark.web.callers import (
    OUTAGES,
    Caller,
    Monitor,
    flushes,
    raises,
    raises_with,
    sqlite_error,
)

pytestmark = pytest.mark.usefixtures("production_errors")


def test_a_database_that_is_down_is_503_for_everyone(
    monitor: Monitor,
    caller: Caller,
    serve: Callable[..., None],
    subtests: pytest.Subtests,
):
    for error in OUTAGES:
        with subtests.test(repr(error)):
            serve(caller, raises(error))
            response = monitor.fails(caller, 503)
            assert "__Host-" not in str(response.headers.getlist("Set-Cookie"))


@pytest.mark.parametrize(
    "error",
    [
        exc.OperationalError("", {}, sqlite_error(sqlite3.SQLITE_ERROR)),
        exc.InternalError("", {}, psycopg.errors.InFailedSqlTransaction()),
        exc.ProgrammingError("", {}, psycopg.errors.UndefinedColumn()),
        TimeoutError("of another server"),
    ],
)
def test_a_wrong_statement_is_a_server_error(
    monitor: Monitor,
    signed_in_user: Caller,
    serve: Callable[..., None],
    error: BaseException,
):
    serve(signed_in_user, raises(error))
    monitor.fails(signed_in_user)


def test_in_development_a_wrong_statement_reaches_the_debugger(
    app: Flask,
    signed_in_user: Caller,
    serve: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setitem(app.config, "PROPAGATE_EXCEPTIONS", None)
    monkeypatch.setattr(app, "debug", True)
    monkeypatch.setattr(app, "testing", False)
    serve(signed_in_user, lambda: db.session.execute(text("SELECT missing FROM users")))
    with pytest.raises(exc.DBAPIError, match="missing"):
        signed_in_user.get()


def test_a_session_that_can_not_be_read_is_no_sign_out(
    monitor: Monitor,
    signed_in_user: Caller,
    serve: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
):
    signed_in_user.id = None  # it can't be read
    serve(signed_in_user, lambda: "well")
    for error, status in (
        (OUTAGES[0], 503),
        (exc.ProgrammingError("", {}, Exception()), 500),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(rows, "fetch", raises_with(error))
            response = monitor.fails(signed_in_user, status)
            form = signed_in_user.visitor.client.post("/change", data={"password": "x"})
        assert form.status_code == status, "an unknown session is no expired form"
        assert "__Host-" not in str(response.headers.getlist("Set-Cookie"))
    assert monitor.get(signed_in_user, 200).text == "well"


def test_a_pending_rollback_is_an_outage_when_what_failed_was_one(
    monitor: Monitor, signed_in_user: Caller, app: Flask, serve: Callable[..., None]
):
    def view() -> None:
        g.database_error_was_outage = True  # as bulwark.database.outages sets it
        raise exc.PendingRollbackError

    serve(signed_in_user, view)
    monitor.fails(signed_in_user, 503)


def test_an_outage_is_not_waited_for_twice(
    monitor: Monitor,
    signed_in_user: Caller,
    serve: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
):
    def view() -> None:
        session["cart"] = "full"
        raise OUTAGES[0]

    queries: list[object] = []
    monkeypatch.setattr(session_store, "save", lambda *found: queries.append(found))
    serve(signed_in_user, view)
    monitor.fails(signed_in_user, 503)
    assert queries == []


def test_a_rollback_that_fails_too_changes_nothing(
    monitor: Monitor,
    signed_in_user: Caller,
    serve: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
):
    serve(signed_in_user, flushes)
    with monkeypatch.context() as patch:
        patch.setattr(db.session, "rollback", raises_with(OUTAGES[0]))
        # To give up the connection would give up a database in memory.
        patch.setattr(Session, "invalidate", Session.close)
        monitor.fails(signed_in_user)
    serve(signed_in_user, lambda: "well")
    assert monitor.get(signed_in_user, 200).text == "well"
