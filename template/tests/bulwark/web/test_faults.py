"""Faults: whatever raises, one answer in the service's style, one line, one event."""

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from flask import (
    Flask,
    Response,
    abort,
    current_app,
    g,
    redirect,
    render_template_string,
    session,
    stream_with_context,
)
from flask_login import current_user
from jinja2 import ChoiceLoader, DictLoader
from sqlalchemy import exc, select
from sqlalchemy.orm import Session
from werkzeug.exceptions import InternalServerError
from werkzeug.test import TestResponse

from bulwark.audit import events
from bulwark.database import db
from bulwark.identity import session_store, tokens
from bulwark.identity.models import Role
from bulwark.identity.sessions import UserSession
from bulwark.web.access import permission, public, signed_in
from tests.bulwark.conftest import Written
from tests.conftest import Visitor, add_person

ENDPOINT, PATH = "account.activity", "/account/activity"
FAULT, OUTAGE = "sys_error", "sys_database_unreachable"
TITLES = {500: "Something went wrong", 503: "Service temporarily unavailable"}
HEADERS = {"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY"}
BREAKS = "{{ nope() }}"
View = Callable[[], Any]


@dataclass
class Caller:
    """Whoever asks for the view of a test."""

    visitor: Visitor
    access: Callable[[View], View]
    headers: dict[str, str]
    id: int | None

    def ask(self) -> TestResponse:
        return self.visitor.get(PATH, headers=self.headers)


@pytest.fixture(autouse=True)
def production(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing that is raised reach the test, nor the server."""
    monkeypatch.setitem(app.config, "PROPAGATE_EXCEPTIONS", False)


@pytest.fixture(params=["visitor", "session", "token"])
def caller(request: pytest.FixtureRequest, app: Flask, visitor: Visitor) -> Caller:
    """Somebody unknown, somebody signed in, and a script with a token, in turn."""
    if request.param == "visitor":
        return Caller(visitor, public, {}, None)
    return member(app, visitor, by_token=request.param == "token")


def member(app: Flask, visitor: Visitor, *, by_token: bool = False) -> Caller:
    """Return somebody with an account, signed in or with a token."""
    email = add_person(app, "ada@example.org", "administrator")
    with app.app_context():
        user = app.extensions["security"].datastore.find_user(email=email)
        number = user.id
        token, _ = tokens.make(user, "Report", ["users:read"], 30)
        db.session.commit()
    if by_token:
        bearer = {"Authorization": f"Bearer {token}"}
        return Caller(visitor, permission("users:read"), bearer, number)
    visitor.sign_in(email)
    return Caller(visitor, signed_in, {}, number)


@pytest.fixture
def somebody(app: Flask, visitor: Visitor) -> Caller:
    """Somebody who is signed in."""
    return member(app, visitor)


class Watch:
    """Asks, and holds what was logged and counted against the answer."""

    def __init__(self, app: Flask, written: Written) -> None:
        self.app, self.written = app, written

    def counts(self) -> Counter[tuple[str, ...]]:
        """Return how many requests and events this process has counted."""
        return Counter(
            {
                (sample.name, *sample.labels.values()): sample.value
                for metric in self.app.extensions["metrics"].registry.collect()
                for sample in metric.samples
                if sample.name in ("http_requests_total", "security_events_total")
            }
        )

    def ask(self, caller: Caller, status: int, *told: str) -> TestResponse:
        """Ask once; there must be one line, one count, and the events named."""
        self.written.seek(0)
        self.written.truncate()
        before = self.counts()
        answer = caller.ask()
        lines = self.written.lines()
        assert answer.status_code == status
        assert [x["status"] for x in lines if x["event"] == "request"] == [status]
        seen = [x for x in lines if x["event"] in (FAULT, OUTAGE)]
        assert [line["event"] for line in seen] == list(told)
        assert {line["request_id"] for line in lines} == {
            answer.headers["X-Request-ID"]
        }
        more = self.counts() - before
        requests = {k: n for k, n in more.items() if k[0] == "http_requests_total"}
        assert requests == {("http_requests_total", "GET", PATH, str(status)): 1}
        assert {k[1] for k in more if k[1] in (FAULT, OUTAGE)} == set(told)
        return answer

    def fails(self, caller: Caller, status: int = 500) -> TestResponse:
        """Ask for what fails; the answer must look as every error does."""
        answer = self.ask(caller, status, FAULT if status == 500 else OUTAGE)
        (line,) = [x for x in self.written.lines() if x["event"] in (FAULT, OUTAGE)]
        assert line.get("actor_id") == caller.id
        assert line["exception"]
        assert answer.headers["X-Request-ID"] in answer.text
        assert TITLES[status] in answer.text
        assert answer.is_json is ("Authorization" in caller.headers)
        assert answer.headers.get("Retry-After") == ("5" if status == 503 else None)
        assert "Content-Security-Policy" in answer.headers
        assert HEADERS.items() <= dict(answer.headers).items()
        return answer


@pytest.fixture
def watch(app: Flask, written: Written) -> Watch:
    return Watch(app, written)


@pytest.fixture
def serve(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Caller, View], None]:
    """Put a view in the place of another."""

    def put(caller: Caller, view: View) -> None:
        def copy() -> Any:
            return view()

        monkeypatch.setitem(app.view_functions, ENDPOINT, caller.access(copy))

    return put


def raises(error: BaseException) -> View:
    def view() -> None:
        raise error

    return view


class UnprintableError(Exception):
    """Can't even say what it is."""

    def __str__(self) -> str:
        raise ValueError


def add_a_role_without_a_name() -> None:
    db.session.add(Role(name=None))


def flushes() -> None:
    add_a_role_without_a_name()
    db.session.flush()


def commits() -> None:
    add_a_role_without_a_name()
    db.session.commit()


def goes_on() -> None:
    with suppress(exc.IntegrityError):
        flushes()
    db.session.scalars(select(Role)).all()


def returns_to_a_page_that_reads_who_is_signed_in() -> str:
    with suppress(exc.IntegrityError):
        flushes()
    return render_template_string("{{ current_user.email }}{{ nope() }}")


def records_what_can_not_be_kept() -> str:
    add_a_role_without_a_name()
    with db.session.no_autoflush:
        events.record("authz_fail")
    return "never sent"


def recurses() -> None:
    recurses()


FAULTS: list[View] = [
    raises(ValueError("out of paper")),
    raises(UnprintableError()),
    raises(exc.NoResultFound()),
    raises(psycopg.ProgrammingError("no such thing")),
    flushes,
    commits,
    goes_on,
    returns_to_a_page_that_reads_who_is_signed_in,
    records_what_can_not_be_kept,
    recurses,
    lambda: render_template_string(BREAKS),
    lambda: None,
    lambda: redirect("https://[x"),
    lambda: abort(500),
]


def test_whatever_a_view_raises_is_one_page_one_line_one_event(
    watch: Watch, caller: Caller, serve: Callable[..., None], subtests: pytest.Subtests
):
    for number, view in enumerate(FAULTS):
        with subtests.test(view.__name__, number=number):
            serve(caller, view)
            watch.fails(caller)
    serve(caller, lambda: "well")
    assert watch.ask(caller, 200).text == "well"


def sqlite_error(code: int) -> sqlite3.Error:
    error = sqlite3.OperationalError("as SQLite says it")
    error.sqlite_errorcode = code
    return error


def lost() -> exc.DBAPIError:
    """Return what SQLAlchemy raises when a connection turns out to be closed."""
    return exc.InterfaceError("", {}, Exception(), connection_invalidated=True)


OUTAGES: list[BaseException] = [
    exc.OperationalError("", {}, sqlite_error(sqlite3.SQLITE_BUSY)),
    exc.OperationalError("", {}, sqlite_error(sqlite3.SQLITE_IOERR | 1 << 8)),
    exc.OperationalError("", {}, psycopg.errors.AdminShutdown()),
    exc.OperationalError("", {}, psycopg.errors.TooManyConnections()),
    exc.InternalError("", {}, psycopg.errors.ReadOnlySqlTransaction()),
    exc.TimeoutError("the pool is exhausted"),
    lost(),
    sqlite_error(sqlite3.SQLITE_FULL),
    psycopg.OperationalError("the connection is lost"),
]


def test_a_database_that_is_away_is_503_for_everybody(
    watch: Watch, caller: Caller, serve: Callable[..., None], subtests: pytest.Subtests
):
    for error in OUTAGES:
        with subtests.test(repr(error)):
            serve(caller, raises(error))
            answer = watch.fails(caller, 503)
            assert "Set-Cookie" not in answer.headers


@pytest.mark.parametrize(
    "error",
    [
        exc.OperationalError("", {}, sqlite_error(sqlite3.SQLITE_ERROR)),
        exc.InternalError("", {}, psycopg.errors.InFailedSqlTransaction()),
        exc.ProgrammingError("", {}, psycopg.errors.UndefinedColumn()),
        TimeoutError("of another server"),
    ],
)
def test_a_wrong_statement_is_a_fault(
    watch: Watch, somebody: Caller, serve: Callable[..., None], error: BaseException
):
    serve(somebody, raises(error))
    watch.fails(somebody)


def fail() -> None:
    raise LookupError("out of ink")


def fail_with(*_: Any) -> None:
    raise LookupError("out of ink")


@pytest.fixture
def broken_page(app: Flask, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Break the page of errors, as a team's own may be."""
    own = DictLoader({"bulwark/error.html": BREAKS})
    loaders = ChoiceLoader([own, app.jinja_env.loader])  # type: ignore[list-item]
    monkeypatch.setattr(app.jinja_env, "loader", loaders)
    monkeypatch.setattr(app.jinja_env, "cache", {})
    yield
    app.jinja_env.cache = {}


@pytest.mark.usefixtures("broken_page")
@pytest.mark.parametrize("view", [lambda: abort(404), fail, flushes])
def test_a_broken_page_of_errors_is_replaced(
    watch: Watch, somebody: Caller, serve: Callable[..., None], view: View
):
    serve(somebody, view)
    watch.fails(somebody)


@pytest.mark.usefixtures("broken_page")
def test_a_broken_page_of_errors_hides_no_outage(
    watch: Watch, somebody: Caller, serve: Callable[..., None]
):
    serve(somebody, raises(OUTAGES[0]))
    watch.fails(somebody, 503)


@pytest.mark.parametrize("when", ["before_request_funcs", "after_request_funcs"])
def test_a_fault_of_a_function_of_each_request_is_one(
    watch: Watch,
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
    watch.fails(caller)


def test_a_function_after_requests_that_returns_nothing_is_a_fault(
    watch: Watch,
    caller: Caller,
    app: Flask,
    serve: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
):
    serve(caller, lambda: "well")
    functions = [lambda _: None, *app.after_request_funcs[None]]
    monkeypatch.setitem(app.after_request_funcs, None, functions)
    watch.fails(caller)


def test_a_session_that_can_not_be_kept_is_a_fault(
    watch: Watch,
    somebody: Caller,
    serve: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
):
    def view() -> str:
        session["cart"] = "full"
        return "well"

    serve(somebody, view)
    monkeypatch.setattr(session_store, "save", fail_with)
    watch.fails(somebody)


@pytest.mark.parametrize(
    "when", ["teardown_request_funcs", "teardown_appcontext_funcs"]
)
def test_a_fault_when_all_is_over_leaves_the_answer_as_it_is(
    watch: Watch,
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
    assert "roles" in watch.ask(caller, 200, FAULT).text
    assert not db.session.registry.registry, "a session of the database is left"


def says_nothing() -> Iterator[str]:
    raise LookupError("out of ink")
    yield "never said"


def says_no_text() -> Iterator[Any]:
    yield 5


def says_what_is_no_text() -> Iterator[str]:
    yield "\ud800"


def reads_what_is_not_there() -> Iterator[str]:
    yield db.session.scalars(select(Role.name).where(Role.name == "nobody")).one()


STREAMS: list[View] = [
    says_nothing,
    says_no_text,
    says_what_is_no_text,
    reads_what_is_not_there,
    lambda: Response(stream_with_context(says_nothing())),
    lambda: Response(stream_with_context(reads_what_is_not_there())),
]


def test_a_stream_that_fails_before_it_says_anything_is_a_fault_of_its_view(
    watch: Watch, caller: Caller, serve: Callable[..., None], subtests: pytest.Subtests
):
    for number, view in enumerate(STREAMS):
        with subtests.test(view.__name__, number=number):
            serve(caller, view)
            watch.fails(caller)
    serve(caller, lambda: iter(["w", "e", "ll"]))
    assert watch.ask(caller, 200).text == "well"
    serve(caller, lambda: iter([]))
    assert watch.ask(caller, 200).text == ""


def test_a_stream_may_find_out_late_that_it_has_nothing_to_say(
    watch: Watch, caller: Caller, serve: Callable[..., None]
):
    def refuses() -> Iterator[str]:
        abort(404)
        yield "never said"

    def is_away() -> Iterator[str]:
        raise OUTAGES[0]
        yield "never said"

    serve(caller, refuses)
    watch.ask(caller, 404)
    serve(caller, is_away)
    watch.fails(caller, 503)


def test_a_stream_that_fails_is_closed_and_answered_once(
    watch: Watch,
    somebody: Caller,
    app: Flask,
    serve: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
):
    closed = []

    def view() -> Response:
        response = Response(says_nothing())
        response.call_on_close(lambda: closed.append(True))
        return response

    handlers = app.error_handler_spec[None][None]
    monkeypatch.setitem(handlers, LookupError, lambda _: Response(says_nothing()))
    serve(somebody, view)
    watch.fails(somebody)
    assert closed == [True]


def test_a_stream_may_have_a_context_of_its_own(
    watch: Watch, caller: Caller, app: Flask, serve: Callable[..., None]
):
    def body() -> Iterator[str]:
        with app.app_context():
            yield "first"
            yield current_app.name

    serve(caller, body)
    assert watch.ask(caller, 200).text == f"first{app.name}"


def test_no_more_of_a_stream_is_made_than_its_first_part(
    watch: Watch, caller: Caller, serve: Callable[..., None]
):
    made = []

    def body() -> Iterator[str]:
        for part in ("first", "second", "third"):
            made.append(part)
            yield part

    serve(caller, body)
    answer = watch.ask(caller, 200)
    assert made == ["first"]
    assert answer.text == "firstsecondthird"
    made.clear()
    assert caller.visitor.client.head(PATH, headers=caller.headers).text == ""
    assert made == []


def test_a_body_that_breaks_on_its_way_is_an_event(
    watch: Watch, caller: Caller, serve: Callable[..., None], written: Written
):
    def body() -> Iterator[str]:
        yield "first"
        raise LookupError("out of ink")

    serve(caller, body)
    before = watch.counts()
    answer = watch.ask(caller, 200)
    parts = answer.iter_encoded()
    assert next(parts) == b"first"
    with pytest.raises(LookupError):  # the server closes the connection
        next(parts)
    lines = written.lines()
    assert [x["status"] for x in lines if x["event"] == "request"] == [200]
    (line,) = [line for line in lines if line["event"] == FAULT]
    assert (line["method"], line["route"]) == ("GET", PATH)
    assert line["request_id"] == answer.headers["X-Request-ID"]
    more = watch.counts() - before
    assert {k: n for k, n in more.items() if k[0] == "http_requests_total"} == {
        ("http_requests_total", "GET", PATH, "200"): 1
    }
    assert more["security_events_total", FAULT] == 1


def test_what_a_body_has_opened_is_closed(
    caller: Caller, serve: Callable[..., None], app: Flask
):
    closed = []

    class Body:
        def __iter__(self) -> Iterator[str]:
            return iter(["all"])

        def close(self) -> None:
            closed.append(True)

    serve(caller, lambda: Response(Body()))
    answer = caller.ask()
    assert answer.text == "all"
    answer.close()
    assert closed == [True]


def test_what_escapes_flask_is_answered_too(
    watch: Watch, somebody: Caller, app: Flask, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(app, "full_dispatch_request", fail)
    monkeypatch.setattr(app, "handle_exception", fail_with)
    answer = somebody.ask()
    assert answer.status_code == 500
    assert TITLES[500] in answer.text
    assert answer.headers["X-Request-ID"] in answer.text
    assert HEADERS.items() <= dict(answer.headers).items()
    lines = [x["event"] for x in watch.written.lines()]
    assert lines[-2:] == [FAULT, "request"]


def test_a_function_before_requests_may_answer_first(
    watch: Watch, caller: Caller, app: Flask, monkeypatch: pytest.MonkeyPatch
):
    functions = [lambda: "shut today", *app.before_request_funcs[None]]
    monkeypatch.setitem(app.before_request_funcs, None, functions)
    assert watch.ask(caller, 200).text == "shut today"


def test_a_teams_handler_may_read_the_database_that_has_failed_a_view(
    watch: Watch,
    somebody: Caller,
    app: Flask,
    serve: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
):
    def conflict(_: exc.IntegrityError) -> tuple[str, int]:
        return f"{current_user.email} tried it twice", 409

    handlers = app.error_handler_spec[None][None]
    monkeypatch.setitem(handlers, exc.IntegrityError, conflict)
    serve(somebody, flushes)
    assert watch.ask(somebody, 409).text == "ada@example.org tried it twice"


def breaks_the_transaction() -> None:
    with suppress(exc.IntegrityError):
        flushes()


def test_a_teams_page_of_faults_may_read_who_is_signed_in(
    watch: Watch,
    somebody: Caller,
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
    serve(somebody, view)
    assert watch.ask(somebody, 500, FAULT).text == "Sorry, ada@example.org"


def test_a_page_that_reads_the_database_may_say_that_the_service_is_busy(
    watch: Watch,
    somebody: Caller,
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
    serve(somebody, view)
    assert TITLES[503] in watch.ask(somebody, 503).text
    assert seen == [False], "who is signed in may not be known any more"


def test_an_event_that_refuses_is_kept(
    somebody: Caller, app: Flask, serve: Callable[..., None]
):
    def view() -> None:
        events.record("authz_fail")
        abort(403)

    serve(somebody, view)
    assert somebody.ask().status_code == 403
    with app.app_context():
        names = db.session.scalars(select(events.SecurityEvent.name)).all()
    assert "authz_fail" in names


def test_a_session_that_can_not_be_read_is_no_sign_out(
    watch: Watch,
    somebody: Caller,
    serve: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
):
    somebody.id = None  # nobody knows
    serve(somebody, lambda: "well")
    for error, status in (
        (OUTAGES[0], 503),
        (exc.ProgrammingError("", {}, Exception()), 500),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(db.session, "execute", raises_with(error))
            answer = watch.fails(somebody, status)
            form = somebody.visitor.client.post("/change", data={"password": "x"})
        assert form.status_code == status, "no session is no form that is too old"
        assert "Set-Cookie" not in answer.headers
    assert watch.ask(somebody, 200).text == "well"


def raises_with(error: BaseException) -> Callable[..., None]:
    def call(*_: Any, **__: Any) -> None:
        raise error

    return call


def test_a_pending_rollback_is_an_outage_when_what_failed_was_one(
    watch: Watch, somebody: Caller, app: Flask, serve: Callable[..., None]
):
    def view() -> None:
        g.database_error_was_outage = True  # as `outages` remembers it
        raise exc.PendingRollbackError

    serve(somebody, view)
    watch.fails(somebody, 503)


def test_in_an_outage_nobody_waits_for_the_database_a_second_time(
    watch: Watch,
    somebody: Caller,
    serve: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
):
    def view() -> None:
        session["cart"] = "full"
        raise OUTAGES[0]

    asked: list[object] = []
    monkeypatch.setattr(session_store, "save", lambda *found: asked.append(found))
    serve(somebody, view)
    watch.fails(somebody, 503)
    assert asked == []


def test_a_rollback_that_fails_too_changes_nothing(
    watch: Watch,
    somebody: Caller,
    serve: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
):
    serve(somebody, flushes)
    with monkeypatch.context() as patch:
        patch.setattr(db.session, "rollback", raises_with(OUTAGES[0]))
        # To give up the connection would give up a database in memory.
        patch.setattr(Session, "invalidate", Session.close)
        watch.fails(somebody)
    serve(somebody, lambda: "well")
    assert watch.ask(somebody, 200).text == "well"


def test_nothing_of_a_failed_view_is_kept(
    somebody: Caller, app: Flask, serve: Callable[..., None]
):
    def view() -> None:
        db.session.add(Role(name="half"))
        db.session.flush()
        raise LookupError

    serve(somebody, view)
    assert somebody.ask().status_code == 500
    with app.app_context():
        assert not db.session.scalars(select(Role).where(Role.name == "half")).all()
        assert db.session.scalars(select(UserSession)).one()
