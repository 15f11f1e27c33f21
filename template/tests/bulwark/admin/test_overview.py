"""The overview: what administrators see of the last day, and what needs a look."""

import re
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask

from bulwark.admin import event_counts, system_status
from bulwark.audit import checks, events
from bulwark.database import db, utcnow
from bulwark.jobs import queue, state
from bulwark.ops import status, worker
from bulwark.ops.backups import drill_results
from bulwark.ops.thresholds import DRILL_AGE
from tests.conftest import Visitor
from tests.support import JSON, user_path

WHY = {"reason": "Their laptop was stolen"}


def overview(ada: Visitor) -> dict[str, Any]:
    answer = ada.get("/admin", headers=JSON)
    assert answer.status_code == 200
    body: dict[str, Any] = answer.get_json()
    return body


def happened(app: Flask, name: str, *hours_ago: float) -> None:
    """Add events, so many hours after the overview's first hour began."""
    with app.test_request_context():
        for hours in hours_ago:
            new = events.record(name)
            new.at = status.first_hour() + timedelta(hours=hours)
        db.session.commit()


def test_the_overview_counts_the_last_day_by_hour(app: Flask, ada: Visitor):
    happened(app, "authn_login_fail", -0.01, 0, 0.5, 3.999, 4)
    happened(app, "authn_mfa_fail", 0.99, 4.5)
    happened(app, "excess_rate_limit_exceeded", 22.999)
    happened(app, "authz_fail", -24, 23)
    happened(app, "authn_login_successafterfail", 5, 23)
    body = overview(ada)
    assert body["hours"][0] == status.first_hour().isoformat()
    by_hour = {
        key: {place: count for place, count in enumerate(counts) if count}
        for key, counts in body["counts"].items()
    }
    assert by_hour == {
        "sign_ins": {5: 1, 23: 2},  # one is Ada's own
        "failed_sign_ins": {0: 3, 3: 1, 4: 2},
        "limits": {22: 1},
        "refusals": {23: 1},
        "server_errors": {},
    }
    assert {len(counts) for counts in body["counts"].values()} == {24}


def test_the_overview_is_a_chart_and_a_text(app: Flask, ada: Visitor):
    happened(app, "authn_login_fail", *[3.5] * 4, 7)
    page = ada.get("/admin").text
    first = status.first_hour()
    hours = f"{first + timedelta(hours=3):%H}:00 to {first + timedelta(hours=4):%H}:00"
    assert f"peak: 4, {hours}" in page
    assert f"<title>{hours}: 4</title>" in page
    assert re.search(r'<rect x="31" y="0.0" width="8" height="48.0">', page)
    assert re.search(r'<rect x="71" y="36.0" width="8" height="12.0">', page)
    assert 'aria-label="Failed sign-ins by hour"' in page
    assert "style=" not in page


def test_what_a_flood_leaves_uncounted_is_unknown(
    app: Flask, ada: Visitor, monkeypatch: pytest.MonkeyPatch
):
    happened(app, "authz_fail", 2, 3, 20, 21)
    monkeypatch.setattr(event_counts, "MOST_COUNTED", 4)  # one is Ada's sign-in
    refusals = overview(ada)["counts"]["refusals"]
    assert refusals[:4] == [None] * 4
    assert (refusals[19:22]) == [0, 1, 1]
    assert "only the newest 4 events are counted" in ada.get("/admin").text


def test_nothing_that_is_unknown_is_in_the_way(
    app: Flask, ada: Visitor, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: object) -> None:
        raise OSError("away")

    queue.flush()
    nothing = overview(ada)
    assert nothing["certificate"] is nothing["worker_seen_at"] is None
    assert nothing["counts"]["server_errors"] == [None] * 24
    assert nothing["concerns"].keys() == {"audit", "worker", "backup"}
    monkeypatch.setattr(queue.storage, "peek_data", fail)
    monkeypatch.setattr(system_status, "_mails", fail)
    body = overview(ada)
    unknown = ["certificate", "audit", "mails", "worker_seen_at", "backup_at"]
    unknown.append("restore_drill_at")
    assert [body[name] for name in unknown] == [None] * 6
    assert ada.get("/admin").text.count("unknown") >= 7


def test_the_overview_shows_the_system_status(app: Flask, ada: Visitor):
    now = utcnow()
    with app.app_context():
        checks.check.call_local()
        worker.show_sign_of_life.call_local()
        state.remember_time("backup")
    span = (now - timedelta(days=60), now + timedelta(days=30, minutes=1), now)
    state.remember(status.CERTIFICATE, [moment.isoformat() for moment in span])
    body = overview(ada)
    assert body["concerns"] == {}
    assert body["certificate"]["days_left"] == 30
    assert body["certificate"]["life_left"] == pytest.approx(1 / 3, abs=0.001)
    assert body["audit"]["rows"] > 0
    assert body["mails"] == {"waiting": 0, "oldest_at": None}
    page = ada.get("/admin").text
    assert "30 days left" in page
    assert 'class="concern"' not in page


def test_the_overview_lists_what_needs_attention(
    app: Flask, ada: Visitor, monkeypatch: pytest.MonkeyPatch
):
    now = utcnow()
    span = (now - timedelta(days=80), now + timedelta(days=10), now)
    state.remember(status.CERTIFICATE, [moment.isoformat() for moment in span])
    long_ago = (now - timedelta(hours=27)).isoformat()
    for what in ("sign of life", "backup"):
        queue.storage.put_data(what.encode(), long_ago.encode())
    result = {"fault": "row 3 is gone", "head": "", "at": now.isoformat()}
    queue.put(checks.RESULT_KEY, result)
    waiting = (1, now - timedelta(minutes=16))
    monkeypatch.setattr(system_status, "_mails", lambda: waiting)
    concerns = overview(ada)["concerns"]
    assert concerns == {
        "certificate": "Its renewal is overdue.",
        "audit": "It is broken: row 3 is gone.",
        "mails": "One is queued for over 15 minutes.",
        "worker": "Not seen for 5 minutes.",
        "backup": "None for more than a day.",
    }
    page = ada.get("/admin").text
    assert all(text in page for text in concerns.values())


def test_the_overview_shows_restore_drills(app: Flask, ada: Visitor):
    def concern() -> str | None:
        concern: str | None = overview(ada)["concerns"].get("drill")
        return concern

    queue.flush()
    long_ago = (utcnow() - DRILL_AGE - timedelta(minutes=1)).isoformat().encode()
    queue.storage.put_data(drill_results.FIRST_BACKUP.encode(), long_ago)
    assert concern() == "None for more than 40 days."
    with app.app_context():
        drill_results.remember_drill(failed=False, seconds=1.5)
    assert concern() is None
    assert overview(ada)["restore_drill_at"]
    queue.storage.put_data(drill_results.PASSED.encode(), long_ago)
    assert concern() == "None for more than 40 days."
    with app.app_context():
        drill_results.remember_drill(failed=True, seconds=1.5)
    assert concern() == "The last one failed."
    assert "The last one failed." in ada.get("/admin").text


def test_the_overview_shows_warnings_that_are_not_counted(
    app: Flask, ada: Visitor, person: str
):
    happened(app, "authn_login_fail", 1)
    happened(app, "authn_logout", 1)
    happened(app, "authn_token_reuse", -1)
    ada.submit(user_path(app, person, "lock"), WHY)
    (event,) = overview(ada)["events"]
    assert (event["name"], event["user"]) == ("authn_login_lock", person)
    assert "An account was locked" in ada.get("/admin").text


def test_the_overview_asks_the_database_a_few_things(
    app: Flask, ada: Visitor, statements: list[str]
):
    happened(app, "authn_login_fail", *range(24))
    statements.clear()
    assert ada.get("/admin").status_code == 200
    assert len(statements) <= 12, statements
