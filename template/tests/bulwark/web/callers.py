"""Clients of a view that raises, and checks of the responses that they get."""

import sqlite3
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psycopg
from flask import Flask
from sqlalchemy import exc
from werkzeug.test import TestResponse

from bulwark.database import db
from bulwark.identity import tokens
from bulwark.identity.models import Role
from bulwark.web.access import permission, signed_in
from tests.beginnings import begin
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
    """A client that requests the view of a test."""

    visitor: Visitor
    access: Callable[[View], View]
    headers: dict[str, str]
    id: int | None

    def get(self) -> TestResponse:
        return self.visitor.get(PATH, headers=self.headers)


def member(app: Flask, visitor: Visitor, *, by_token: bool = False) -> Caller:
    """Return an administrator, signed in or with a token."""

    def make() -> tuple[int, str]:
        email = add_person(app, "ada@example.org", "administrator")
        with app.app_context():
            user = app.extensions["security"].datastore.find_user(email=email)
            number = user.id
            token, _ = tokens.make(user, "Report", ["users:read"], 30)
            db.session.commit()
        if not by_token:
            visitor.sign_in(email)
        return number, token

    number, token = begin(visitor, f"member {by_token}", make)
    if by_token:
        bearer = {"Authorization": f"Bearer {token}"}
        return Caller(visitor, permission("users:read"), bearer, number)
    return Caller(visitor, signed_in, {}, number)


class Monitor:
    """Sends requests, and compares what is logged and counted with each response."""

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

    def get(self, caller: Caller, status: int, *events: str) -> TestResponse:
        """Send a request: it has one line, one count, and the events named."""
        self.written.seek(0)
        self.written.truncate()
        before = self.counts()
        response = caller.get()
        lines = self.written.lines()
        assert response.status_code == status
        assert [x["status"] for x in lines if x["event"] == "request"] == [status]
        seen = [x for x in lines if x["event"] in (FAULT, OUTAGE)]
        assert [line["event"] for line in seen] == list(events)
        assert {line["request_id"] for line in lines} == {
            response.headers["X-Request-ID"]
        }
        more = self.counts() - before
        requests = {k: n for k, n in more.items() if k[0] == "http_requests_total"}
        assert requests == {("http_requests_total", "GET", PATH, str(status)): 1}
        assert {k[1] for k in more if k[1] in (FAULT, OUTAGE)} == set(events)
        return response

    def fails(self, caller: Caller, status: int = 500) -> TestResponse:
        """Send a request that fails: the response looks like every error."""
        response = self.get(caller, status, FAULT if status == 500 else OUTAGE)
        (line,) = [x for x in self.written.lines() if x["event"] in (FAULT, OUTAGE)]
        assert line.get("actor_id") == caller.id
        assert line["exception"]
        assert response.headers["X-Request-ID"] in response.text
        assert TITLES[status] in response.text
        assert response.is_json is ("Authorization" in caller.headers)
        assert response.headers.get("Retry-After") == ("5" if status == 503 else None)
        assert "Content-Security-Policy" in response.headers
        assert HEADERS.items() <= dict(response.headers).items()
        return response


def raises(error: BaseException) -> View:
    def view() -> None:
        raise error

    return view


def raises_with(error: BaseException) -> Callable[..., None]:
    def call(*_: Any, **__: Any) -> None:
        raise error

    return call


def fail() -> None:
    raise LookupError("out of ink")


def fail_with(*_: Any) -> None:
    raise LookupError("out of ink")


def add_a_role_without_a_name() -> None:
    db.session.add(Role(name=None))


def flushes() -> None:
    add_a_role_without_a_name()
    db.session.flush()


def sqlite_error(code: int) -> sqlite3.Error:
    error = sqlite3.OperationalError("database is locked")
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
