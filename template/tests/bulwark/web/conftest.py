"""What the tests of requests share: a service of a team, and callers of its views."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from bulwark.web.access import public
from tests.bulwark.conftest import Written
from tests.bulwark.team_app import running
from tests.bulwark.web.callers import ENDPOINT, Caller, Monitor, View, member
from tests.bulwark.web.team import blueprint, notes
from tests.conftest import Visitor


@pytest.fixture(scope="module")
def team_app(
    whole_app: Flask, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Flask]:
    """A service with the views above, on a database of its own if that is SQLite."""
    folder = tmp_path_factory.mktemp("team")
    with running(whole_app, folder, [blueprint], notes) as app:
        yield app


@pytest.fixture
def team(team_app: Flask, mailbox: Path) -> Visitor:
    """A visitor of that service."""
    return Visitor(team_app, mailbox)


@pytest.fixture
def production_errors(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Handle exceptions as in production, instead of raising them in the test."""
    monkeypatch.setitem(app.config, "PROPAGATE_EXCEPTIONS", False)


@pytest.fixture(params=["visitor", "session", "token"])
def caller(request: pytest.FixtureRequest, app: Flask, visitor: Visitor) -> Caller:
    """A visitor, a signed-in user, and a script with a token, in turn."""
    if request.param == "visitor":
        return Caller(visitor, public, {}, None)
    return member(app, visitor, by_token=request.param == "token")


@pytest.fixture
def signed_in_user(app: Flask, visitor: Visitor) -> Caller:
    """An administrator who is signed in."""
    return member(app, visitor)


@pytest.fixture
def monitor(app: Flask, written: Written) -> Monitor:
    return Monitor(app, written)


@pytest.fixture
def serve(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Caller, View], None]:
    """Replace a view of the base."""

    def put(caller: Caller, view: View) -> None:
        def copy() -> Any:
            return view()

        monkeypatch.setitem(app.view_functions, ENDPOINT, caller.access(copy))

    return put
