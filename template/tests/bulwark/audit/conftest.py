"""Fixtures of the tests of events and of the audit trail."""

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from flask import Flask
from sqlalchemy import select

from bulwark.audit import checks, events
from bulwark.audit.events import SecurityEvent
from bulwark.database import db
from bulwark.jobs import queue
from bulwark.observability import logging as bulwark_logging
from tests.bulwark.audit.support import NEVER, ROWS, Watch
from tests.conftest import Visitor, add_person


@pytest.fixture
def recorded(
    app: Flask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[list[int]]:
    """The ids of six events, each of a transaction of its own."""
    file = str(tmp_path / "anchors")
    settings = replace(app.extensions["bulwark"], audit_anchors=file)
    monkeypatch.setitem(app.extensions, "bulwark", settings)
    with app.app_context():
        ids = []
        for number in range(ROWS):
            new = events.record("session_expired", reason=f"event {number + 1}")
            db.session.commit()
            ids.append(new.id)
        yield ids
        db.session.rollback()
    queue.put(checks.RESULT_KEY, NEVER)


@pytest.fixture
def watch(app: Flask, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    """What is recorded, as production logs it."""
    out = io.StringIO()
    monkeypatch.setattr(bulwark_logging, "sys", SimpleNamespace(stdout=out, stderr=out))
    bulwark_logging.configure("INFO", readable=False)
    with app.app_context():
        newest = db.session.scalar(
            select(SecurityEvent.id).order_by(SecurityEvent.id.desc()).limit(1)
        )
    yield Watch(app, out, rows=newest or 0)
    monkeypatch.undo()
    bulwark_logging.configure("INFO", readable=True)


@pytest.fixture
def zoe(visitor: Visitor, watch: Watch, person: str) -> str:
    """The address of a user who is signed in."""
    visitor.sign_in(person)
    watch.new()
    return person


@pytest.fixture
def with_app(app: Flask) -> str:
    """The address of a user with an authenticator app, who is not signed in."""
    return add_person(app, "zoe@example.org", totp=True)
