"""The access matrix: each route and method, called as everybody, does what is declared.

`bulwark/access.txt` and `app/access.txt` show the same to whoever reviews a change.
"""

import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from bulwark.database import db
from bulwark.web import access, access_matrix
from bulwark.web.access import ADMINISTRATOR
from bulwark.web.access_matrix import SIGNED_IN, VISITOR, Route
from bulwark.web.rate_limits import limiter
from tests.conftest import ROOT, Visitor, add_person
from tests.support import sample_path

REFUSED_VISITOR = (401, "Please sign in")
NOT_SET_UP = (403, "Set up a second factor first")
# Of a page, and of a view of an API.
SIGN_IN_AGAIN = re.compile('"reauth_required"|"Please sign in again, then retry"')
FORBIDDEN = (403, "You don't have permission")


@pytest.fixture(autouse=True)
def _without_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limiter, "enabled", False)


class Caller(Visitor):
    """Somebody who calls every route: a visitor, or a person who stays signed in."""

    email = ""
    token = ""

    def enter(self) -> None:
        """Sign in, and keep the CSRF token."""
        if self.email:
            self.sign_in(self.email)
        self.token = self.csrf_token("/reset")

    def call(self, route: Route) -> TestResponse:
        """Call a route with arguments that name nothing."""
        if not self.token:
            self.enter()
        path = sample_path(route.rule, 2147483647)
        headers = {"Accept": "application/json", "Referer": "https://localhost/"}
        headers["X-CSRFToken"] = self.token
        answer = self.client.open(path, method=route.method, headers=headers)
        answer.get_data()
        answer.close()
        if route.rule == "/logout":
            self.token = ""
        return answer


def caller(app: Flask, mailbox: Path, who: str) -> Caller:
    """Return a visitor, a person without a role, or one with the role `who`."""
    someone = Caller(app, mailbox)
    if who != VISITOR:
        roles = () if who == SIGNED_IN else (who,)
        email = f"{who.replace(' ', '-')}@example.org"
        someone.email = add_person(app, email, *roles)
    return someone


def routes(app: Flask) -> Iterator[Route]:
    """Yield the routes of the service, without those that tests added to it."""
    for route in access_matrix.routes(app):
        if not app.view_functions[route.endpoint].__module__.startswith("tests."):
            yield route


def outcome(answer: TestResponse) -> tuple[int, object]:
    """Return the status, and the reason: views of an API have it in `detail`."""
    body = answer.get_json(silent=True)
    fields = body if isinstance(body, dict) else {}
    return answer.status_code, fields.get("error", fields.get("detail"))


def note_calls(app: Flask, patch: pytest.MonkeyPatch) -> list[str]:
    """Return the endpoints of the team's views as they are called.

    Such a view may refuse some of those to whom its declaration opens it.
    """
    called: list[str] = []

    def noted(endpoint: str, view: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(view)
        def call(**arguments: Any) -> Any:
            called.append(endpoint)
            return view(**arguments)

        return call

    for endpoint, view in list(app.view_functions.items()):
        if view.__module__.partition(".")[0] == "app":
            patch.setitem(app.view_functions, endpoint, noted(endpoint, view))
    return called


def test_each_route_opens_to_those_it_declares_only(
    app: Flask, mailbox: Path, monkeypatch: pytest.MonkeyPatch
):
    called = note_calls(app, monkeypatch)
    wrong = []
    for who in (VISITOR, SIGNED_IN, *app.extensions["roles"]):
        someone = caller(app, mailbox, who)
        refusal = REFUSED_VISITOR if who == VISITOR else FORBIDDEN
        for route in routes(app):
            called.clear()
            answer = someone.call(route)
            opened = answer.status_code not in (401, 403) or route.endpoint in called
            declared = access_matrix.allows(app, route.endpoint, who)
            if opened != declared or not (opened or outcome(answer) == refusal):
                wrong.append((who, *route[:2], outcome(answer)))
    assert not wrong, "called, these did not do what they declare"


def test_who_must_set_up_a_second_factor_can_do_nothing_else(app: Flask, mailbox: Path):
    ada = caller(app, mailbox, ADMINISTRATOR)
    with app.app_context():
        user = app.extensions["security"].datastore.find_user(email=ada.email)
        user.sealed_totp_secret = user.tf_primary_method = None
        db.session.commit()
    for route in routes(app):
        waits = not (
            access.declared_for(app, route.endpoint) == access.PUBLIC
            or hasattr(app.view_functions[route.endpoint], "while_setting_up")
        )
        assert (outcome(ada.call(route)) == NOT_SET_UP) == waits, route


def test_routes_marked_recent_ask_again_and_no_others(
    app: Flask, mailbox: Path, monkeypatch: pytest.MonkeyPatch
):
    ada = caller(app, mailbox, ADMINISTRATOR)
    later = datetime.fromtimestamp(time.time() + 60 * 60, UTC).replace(tzinfo=None)
    reauthenticated, marked = set(), set()
    for route in routes(app):
        if not ada.token:
            ada.enter()
        with monkeypatch.context() as patch:
            patch.setattr("flask_security.utils.naive_utcnow", lambda: later)
            answer = ada.call(route)
        if SIGN_IN_AGAIN.search(answer.text):
            reauthenticated.add(route[:2])
        if hasattr(app.view_functions[route.endpoint], "recent"):
            marked.add(route[:2])
    assert reauthenticated == marked


def rows(text: str) -> list[str]:
    return [line for line in text.splitlines() if not line.startswith("#")]


def test_the_two_files_show_what_is_declared(
    app: Flask, monkeypatch: pytest.MonkeyPatch
):
    declared = list(routes(app))
    monkeypatch.setattr(access_matrix, "routes", lambda _: declared)
    files = access_matrix.files(app)
    assert set(files) == {ROOT / "bulwark/access.txt", ROOT / "app/access.txt"}
    for path, text in files.items():
        # The comments of a team's file may be those of an earlier release.
        assert rows(path.read_text(encoding="utf-8")) == rows(text), (
            "who may call what has changed: if it should, run"
            " `bin/flask access --write`, read the diff and commit it"
        )
        assert text in app.test_cli_runner().invoke(args=["access"]).output


def test_the_files_are_written_on_request(
    app: Flask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(
        access_matrix, "files", lambda _: {tmp_path / "access.txt": "text"}
    )
    app.test_cli_runner().invoke(args=["access", "--write"])
    assert (tmp_path / "access.txt").read_text() == "text"


def test_a_request_of_a_signed_in_user_costs_one_query_beside_its_view(
    app: Flask,
    mailbox: Path,
    statements: list[str],
    monkeypatch: pytest.MonkeyPatch,
):
    view = access.permission("users:read")(lambda: "hello")
    monkeypatch.setitem(app.view_functions, "admin.roles", view)
    ada = caller(app, mailbox, ADMINISTRATOR)
    ada.sign_in(ada.email)
    statements.clear()
    assert ada.get("/admin/roles").text == "hello"
    assert len(statements) == 1, statements
