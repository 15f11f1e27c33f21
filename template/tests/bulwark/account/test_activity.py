"""The activity of an account: what its user reads of the events."""

from datetime import timedelta
from typing import Any

import pytest
from flask import Flask

from bulwark.account.activity import PAGE
from bulwark.audit.catalogue import CATALOGUE
from bulwark.audit.events import SecurityEvent
from bulwark.database import db, utcnow
from tests.conftest import Visitor, add_person
from tests.support import (
    FIREFOX,
    JSON,
    find_user,
    text_of,
)


def add_events(app: Flask, email: str, *names: str, **columns: Any) -> None:
    with app.app_context():
        columns.setdefault("user_id", find_user(app, email).id)
        columns.setdefault("method", "POST")
        for second, name in enumerate(names):
            at = utcnow() + timedelta(seconds=second)
            db.session.add(SecurityEvent(at=at, name=name, details={}, **columns))
        db.session.commit()


def test_a_person_reads_their_own_history_alone(
    visitor: Visitor, app: Flask, person: str
):
    other = add_person(app, "yan@example.org")
    add_events(app, other, "authn_recovery_code_used")
    add_events(app, person, "authz_fail", "authn_mfa_enrolled")
    visitor.sign_in(person)
    activity = visitor.get("/account/activity", headers=JSON).get_json()["activity"]
    assert {event["name"] for event in activity} == {
        "authn_login_success",
        "authn_mfa_enrolled",
    }
    page = text_of(visitor, "/account/activity")
    assert CATALOGUE["authn_mfa_enrolled"].user_text in page
    assert CATALOGUE["authn_recovery_code_used"].user_text not in page


def test_a_long_history_is_read_in_pages_newest_first(
    visitor: Visitor, app: Flask, person: str
):
    visitor.sign_in(person)
    add_events(app, person, *["authz_change"] * (2 * PAGE))
    seen, path = [], "/account/activity"
    for _ in range(3):
        answer = visitor.get(path, headers=JSON).get_json()
        seen += [event["id"] for event in answer["activity"]]
        path = f"/account/activity?before={answer['older_than']}"
    assert answer["older_than"] is None
    assert len(seen) == 2 * PAGE + 1
    assert seen == sorted(set(seen), reverse=True)
    assert "Older" in text_of(visitor, "/account/activity")


@pytest.mark.parametrize("before", ["-1", "0", "x", "", "9" * 30, "-" + "9" * 30])
def test_any_page_of_the_history_can_be_asked_for(
    visitor: Visitor, person: str, before: str
):
    visitor.sign_in(person)
    assert visitor.get(f"/account/activity?before={before}").status_code == 200


def test_the_history_shows_who_else_did_it_and_not_from_where(
    visitor: Visitor, app: Flask, person: str
):
    visitor.sign_in(person)
    add_events(
        app, person, "authz_admin", actor_id=0, address="192.0.2.7", user_agent=FIREFOX
    )
    add_events(app, person, "authn_login_unlock", method=None)
    page = text_of(visitor, "/account/activity")
    assert "by an administrator" in page
    assert "by the operator of this service" in page
    assert "192.0.2.7" not in page
    assert "Firefox" not in page
