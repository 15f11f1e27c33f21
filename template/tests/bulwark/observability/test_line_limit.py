"""The limit of log lines: a flood is counted, and the audit trail has every event."""

import pytest
from flask import Flask
from sqlalchemy import func, select

from bulwark.audit import events
from bulwark.audit.events import SecurityEvent
from bulwark.database import db
from bulwark.observability import line_limit, request_log
from tests.bulwark.conftest import Written
from tests.conftest import Visitor


def test_a_flood_of_events_writes_few_lines_and_the_number_of_others(
    written: Written, app: Flask, monkeypatch: pytest.MonkeyPatch
):
    limiter = line_limit.LineLimiter()
    monkeypatch.setattr(events, "line_limiter", limiter)
    monkeypatch.setattr(line_limit, "LINES_A_MINUTE", 5)
    with app.app_context():
        for _ in range(12):
            events.record("session_expired")
            db.session.commit()
        events.record("authn_logout")
        db.session.commit()
        limiter.log_dropped()
        stored = db.session.scalar(select(func.count()).select_from(SecurityEvent))
    lines = written.lines()
    names = [line["event"] for line in lines]
    assert names == ["session_expired"] * 5 + ["authn_logout", "lines_left_out"]
    assert (lines[-1]["of"], lines[-1]["count"]) == ("session_expired", 7)
    assert stored == 13


def test_a_flood_of_rejected_requests_writes_few_lines(
    written: Written, visitor: Visitor, monkeypatch: pytest.MonkeyPatch
):
    limiter = line_limit.LineLimiter()
    monkeypatch.setattr(request_log, "line_limiter", limiter)
    monkeypatch.setattr(line_limit, "LINES_A_MINUTE", 5)
    for _ in range(9):
        visitor.get("/nothing")
        visitor.get("/healthz")
    limiter.log_dropped()
    lines = written.lines()
    assert [line.get("status") for line in lines].count(404) == 5
    assert [line.get("status") for line in lines].count(200) == 9
    assert (lines[-1]["of"], lines[-1]["count"]) == ("request 404", 4)
