"""The pages of sessions: what they list, and whom they sign out."""

import pytest
from flask import Flask
from sqlalchemy import select

from bulwark.audit.events import SecurityEvent
from bulwark.database import db
from bulwark.identity.sessions import UserSession
from tests.conftest import Visitor, add_person
from tests.support import (
    FIREFOX,
    JSON,
    find_user,
    post,
    text_of,
)


def session_ids(app: Flask, email: str) -> list[int]:
    with app.app_context():
        query = select(UserSession.id).where(
            UserSession.user_id == find_user(app, email).id
        )
        return list(db.session.scalars(query.order_by(UserSession.id)))


def revocations(app: Flask) -> list[SecurityEvent]:
    with app.app_context():
        query = select(SecurityEvent).where(SecurityEvent.name == "session_revoked")
        return list(db.session.scalars(query))


def test_sessions_are_listed_by_device_and_network(visitor: Visitor, person: str):
    visitor.client.environ_base["HTTP_USER_AGENT"] = FIREFOX
    visitor.sign_in(person)
    page = text_of(visitor, "/account/sessions")
    assert "Firefox on Linux" in page
    assert "127.0.0.1" in page
    assert "This session" in page
    (only,) = visitor.get("/account/sessions", headers=JSON).get_json()["sessions"]
    assert only["device"] == "Firefox on Linux"
    assert only["current"] is True


@pytest.mark.parametrize("way", ["form", "json"])
def test_a_session_is_ended_from_another_one(
    visitor: Visitor, other_visitor: Visitor, app: Flask, person: str, way: str
):
    other_visitor.sign_in(person)
    visitor.sign_in(person)
    path = f"/account/sessions/{session_ids(app, person)[0]}/end"
    if way == "json":
        assert visitor.send(path, {}).get_json() == {"ended": 1}
    else:
        assert post(visitor, path).headers["Location"] == "/account/sessions"
    assert visitor.is_signed_in()
    assert not other_visitor.is_signed_in()
    (event,) = revocations(app)
    assert event.details == {"ended": 1}


@pytest.mark.parametrize("way", ["form", "json"])
def test_a_session_of_somebody_else_is_not_there(
    visitor: Visitor, other_visitor: Visitor, app: Flask, person: str, way: str
):
    other = add_person(app, "yan@example.org")
    other_visitor.sign_in(other)
    visitor.sign_in(person)
    path = f"/account/sessions/{session_ids(app, other)[0]}/end"
    answer = visitor.send(path, {}) if way == "json" else post(visitor, path)
    assert answer.status_code == 404
    assert other_visitor.is_signed_in()
    assert revocations(app) == []


@pytest.mark.parametrize("number", ["0", "999999", "2147483648", "9" * 40, "x"])
def test_a_session_that_does_not_exist_is_not_there(
    visitor: Visitor, person: str, number: str
):
    visitor.sign_in(person)
    assert post(visitor, f"/account/sessions/{number}/end").status_code == 404


def test_all_other_sessions_end_at_once(
    visitor: Visitor, other_visitor: Visitor, app: Flask, person: str
):
    other_visitor.sign_in(person)
    visitor.sign_in(person)
    for _ in range(2):  # There is nothing left to end the second time, and no event.
        post(visitor, "/account/sessions/end-others")
    assert visitor.is_signed_in()
    assert not other_visitor.is_signed_in()
    assert len(revocations(app)) == 1


def test_no_other_site_can_end_a_session(visitor: Visitor, app: Flask, person: str):
    visitor.sign_in(person)
    (own,) = session_ids(app, person)
    for path in (f"/account/sessions/{own}/end", "/account/sessions/end-others"):
        assert visitor.client.post(path).status_code == 400
        assert visitor.get(path).status_code == 405
    assert visitor.is_signed_in()
