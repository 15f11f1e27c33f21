"""Fixtures of the tests of the audit trail."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from flask import Flask

from bulwark.audit import checks, events
from bulwark.database import db
from bulwark.jobs import queue
from tests.bulwark.audit.support import NEVER, ROWS


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
