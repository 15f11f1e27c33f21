"""What the tests of the API share: the service of a team with an API of notes."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from bulwark.database import db
from bulwark.web.rate_limits import limiter
from tests.bulwark.api.notes import EVERYONE, PERMISSIONS, api, rows, teams
from tests.bulwark.team_app import running
from tests.conftest import Visitor, add_person
from tests.support import bearer, make_token

ZOE = "zoe@example.org"


@pytest.fixture(scope="module")
def notes_app(
    whole_app: Flask, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Flask]:
    """A service with the API of notes."""
    folder = tmp_path_factory.mktemp("notes")
    options = {"permissions": PERMISSIONS, "everyone": EVERYONE}
    with running(whole_app, folder, [api, teams], rows, **options) as app:
        yield app


@pytest.fixture
def notes(notes_app: Flask, app: Flask) -> Iterator[Flask]:
    """The same; what a test writes is gone after it."""
    yield notes_app
    limiter.storage.reset()
    with notes_app.app_context():
        db.session.execute(rows.delete())
        for table in reversed(db.metadata.sorted_tables):
            if table.name in ("access_tokens", "users", "sessions", "guesses"):
                db.session.execute(table.delete())
        db.session.commit()


@dataclass
class Script(Visitor):
    """A program that sends a token with each request."""

    token: str = ""

    def call(self, method: str, path: str, **options: Any) -> TestResponse:
        """Send a request below the prefix of the API."""
        headers = {**bearer(self.token), **options.pop("headers", {})}
        return self.client.open(
            f"/api/v1{path}", method=method, headers=headers, **options
        )


@pytest.fixture
def stranger(notes: Flask, mailbox: Path) -> Visitor:
    """A visitor of that service."""
    return Visitor(notes, mailbox)


@pytest.fixture
def script(notes: Flask, mailbox: Path) -> Script:
    """A program of a user without a role, whose token may read and write notes."""
    add_person(notes, ZOE)
    return Script(notes, mailbox, make_token(notes, ZOE, *EVERYONE))
