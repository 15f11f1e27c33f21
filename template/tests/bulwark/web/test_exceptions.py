"""Exceptions: each has one response, one log line and one event."""

from collections.abc import Callable
from contextlib import suppress

import psycopg
import pytest
from flask import Flask, abort, redirect, render_template_string, session
from flask_login import current_user
from sqlalchemy import exc, select
from werkzeug.exceptions import InternalServerError

from bulwark.audit import events
from bulwark.database import db
from bulwark.identity import session_store
from bulwark.identity.models import Role
from bulwark.identity.sessions import UserSession
from tests.bulwark.web.callers import (
    BREAKS,
    FAULT,
    TITLES,
    Caller,
    Monitor,
    View,
    add_a_role_without_a_name,
    fail,
    fail_with,
    flushes,
    raises,
)

pytestmark = pytest.mark.usefixtures("production_errors")


class UnprintableError(Exception):
    """An exception whose message raises."""

    def __str__(self) -> str:
        raise ValueError


def commits() -> None:
    add_a_role_without_a_name()
    db.session.commit()


def continues_after_a_failed_flush() -> None:
    with suppress(exc.IntegrityError):
        flushes()
    db.session.scalars(select(Role)).all()


def renders_the_user_after_a_failed_flush() -> str:
    with suppress(exc.IntegrityError):
        flushes()
    return render_template_string("{{ current_user.email }}{{ nope() }}")


def records_an_event_with_an_invalid_row() -> str:
    add_a_role_without_a_name()
    with db.session.no_autoflush:
        events.record("authz_fail")
    return "never sent"


def recurses() -> None:
    recurses()


EXCEPTIONS: list[View] = [
    raises(ValueError("out of paper")),
    raises(UnprintableError()),
    raises(exc.NoResultFound()),
    raises(psycopg.ProgrammingError("no such thing")),
    flushes,
    commits,
    continues_after_a_failed_flush,
    renders_the_user_after_a_failed_flush,
    records_an_event_with_an_invalid_row,
    recurses,
    lambda: render_template_string(BREAKS),
    lambda: None,
    lambda: redirect("https://[x"),
    lambda: abort(500),
]


def test_any_exception_in_a_view_is_one_page_one_line_one_event(
    monitor: Monitor,
    caller: Caller,
    serve: Callable[..., None],
    subtests: pytest.Subtests,
):
    for number, view in enumerate(EXCEPTIONS):
        with subtests.test(view.__name__, number=number):
            serve(caller, view)
            monitor.fails(caller)
    serve(caller, lambda: "well")
    assert monitor.get(caller, 200).text == "well"


@pytest.mark.parametrize("when", ["before_request_funcs", "after_request_funcs"])
def test_an_exception_in_a_function_of_each_request_is_one_event(
    monitor: Monitor,
    caller: Caller,
    app: Flask,
    serve: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    when: str,
):
    serve(caller, lambda: "well")
    functions = getattr(app, when)
    broken = fail if when == "before_request_funcs" else fail_with
    monkeypatch.setitem(functions, None, [*functions[None], broken])
    monitor.fails(caller)


def test_an_after_request_function_that_returns_nothing_is_a_server_error(
    monitor: Monitor,
    caller: Caller,
    app: Flask,
    serve: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
):
    serve(caller, lambda: "well")
    functions = [lambda _: None, *app.after_request_funcs[None]]
    monkeypatch.setitem(app.after_request_funcs, None, functions)
    monitor.fails(caller)


def test_a_session_that_can_not_be_stored_is_a_server_error(
    monitor: Monitor,
    signed_in_user: Caller,
    serve: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
):
    def view() -> str:
        session["cart"] = "full"
        return "well"

    serve(signed_in_user, view)
    monkeypatch.setattr(session_store, "save", fail_with)
    monitor.fails(signed_in_user)


@pytest.mark.parametrize(
    "when", ["teardown_request_funcs", "teardown_appcontext_funcs"]
)
def test_an_exception_at_teardown_does_not_change_the_response(
    monitor: Monitor,
    caller: Caller,
    app: Flask,
    serve: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    when: str,
):
    serve(caller, lambda: f"{len(db.session.scalars(select(Role)).all())} roles")
    functions = getattr(app, when)
    if when == "teardown_request_funcs":
        monkeypatch.setitem(functions, None, [*functions.get(None, []), fail_with])
    else:
        monkeypatch.setattr(app, when, [*functions, fail_with])
    assert "roles" in monitor.get(caller, 200, FAULT).text
    assert not db.session.registry.registry, "a database session is left"


def test_a_before_request_function_may_respond_first(
    monitor: Monitor, caller: Caller, app: Flask, monkeypatch: pytest.MonkeyPatch
):
    functions = [lambda: "shut today", *app.before_request_funcs[None]]
    monkeypatch.setitem(app.before_request_funcs, None, functions)
    assert monitor.get(caller, 200).text == "shut today"


def test_an_error_handler_of_the_team_may_use_the_database(
    monitor: Monitor,
    signed_in_user: Caller,
    app: Flask,
    serve: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
):
    def conflict(_: exc.IntegrityError) -> tuple[str, int]:
        return f"{current_user.email} tried it twice", 409

    handlers = app.error_handler_spec[None][None]
    monkeypatch.setitem(handlers, exc.IntegrityError, conflict)
    serve(signed_in_user, flushes)
    assert monitor.get(signed_in_user, 409).text == "ada@example.org tried it twice"


def breaks_the_transaction() -> None:
    with suppress(exc.IntegrityError):
        flushes()


def test_an_error_page_of_the_team_may_read_the_user(
    monitor: Monitor,
    signed_in_user: Caller,
    app: Flask,
    serve: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
):
    def view() -> None:
        breaks_the_transaction()
        raise ValueError

    def page(_: InternalServerError) -> tuple[str, int]:
        return f"Sorry, {current_user.email}", 500

    handlers = app.error_handler_spec[None]
    monkeypatch.setitem(handlers, 500, {InternalServerError: page})
    serve(signed_in_user, view)
    assert monitor.get(signed_in_user, 500, FAULT).text == "Sorry, ada@example.org"


def test_a_page_that_reads_the_database_may_abort_with_503(
    monitor: Monitor,
    signed_in_user: Caller,
    app: Flask,
    serve: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
):
    seen = []

    def context() -> dict[str, int]:
        seen.append(current_user.is_authenticated)
        return {"roles": len(db.session.scalars(select(Role)).all())}

    def view() -> None:
        breaks_the_transaction()
        abort(503)

    contexts = app.template_context_processors
    monkeypatch.setitem(contexts, None, [*contexts[None], context])
    serve(signed_in_user, view)
    assert TITLES[503] in monitor.get(signed_in_user, 503).text
    assert seen == [False], "the user is not loaded again"


def test_the_event_of_a_rejected_request_is_committed(
    signed_in_user: Caller, app: Flask, serve: Callable[..., None]
):
    def view() -> None:
        events.record("authz_fail")
        abort(403)

    serve(signed_in_user, view)
    assert signed_in_user.get().status_code == 403
    with app.app_context():
        names = db.session.scalars(select(events.SecurityEvent.name)).all()
    assert "authz_fail" in names


def test_a_failed_view_stores_nothing(
    signed_in_user: Caller, app: Flask, serve: Callable[..., None]
):
    def view() -> None:
        db.session.add(Role(name="half"))
        db.session.flush()
        raise LookupError

    serve(signed_in_user, view)
    assert signed_in_user.get().status_code == 500
    with app.app_context():
        assert not db.session.scalars(select(Role).where(Role.name == "half")).all()
        assert db.session.scalars(select(UserSession)).one()
