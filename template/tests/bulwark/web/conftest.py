"""What the tests of requests share: a service of a team, and callers of its views."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

import bulwark
from app.models import User
from bulwark.database import db
from bulwark.jobs import queue
from bulwark.web.access import public
from tests.bulwark.conftest import Written
from tests.bulwark.web.callers import ENDPOINT, Caller, Monitor, View, member
from tests.bulwark.web.team import blueprint, notes
from tests.conftest import Visitor


@pytest.fixture(scope="module")
def team_app(
    whole_app: Flask, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Flask]:
    """A service with the views above, on a database of its own if that is SQLite."""
    url = whole_app.config["SQLALCHEMY_DATABASE_URI"]
    queue.storage.close()
    # The service's own navigation may link to views that are not in this app.
    templates = tmp_path_factory.mktemp("templates")
    (templates / "navigation.html").touch()
    app = Flask("app", template_folder=str(templates))
    app.register_blueprint(blueprint)
    with pytest.MonkeyPatch.context() as patch:
        if url.get_backend_name() == "sqlite":
            folder = tmp_path_factory.mktemp("team")
            patch.setenv("APP_DATABASE_URL", f"sqlite:///{folder}/service.db")
        bulwark.init_app(app, user_model=User)
    app.config["PROPAGATE_EXCEPTIONS"] = False
    with app.app_context():
        db.create_all()
        notes.create(db.engine)
        queue.create_tables()
    yield app
    with app.app_context():
        notes.drop(db.engine)
        db.session.remove()
        db.engine.dispose()
    queue.storage.close()
    queue.init_app(whole_app, whole_app.extensions["bulwark"])


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
