"""The pages of access tokens: create, list and revoke one's own."""

import re
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import select, text

from bulwark.audit.events import SecurityEvent
from bulwark.database import db
from bulwark.identity.tokens import AccessToken
from bulwark.web import access
from tests.conftest import Visitor, add_person
from tests.support import bearer, make_token

PAGE = "/account/tokens"
READ = "/admin/users"


@pytest.fixture
def ada(app: Flask) -> str:
    """The address of an administrator."""
    return add_person(app, "ada@example.org", "administrator")


def make_on_page(visitor: Visitor) -> str:
    answer = visitor.submit(
        PAGE, {"name": "Report", "permissions": "users:read", "days": "7"}
    )
    found = re.search(r"bwk_[\w-]{43}", answer.text)
    assert found, answer.text
    return found[0]


def csrf(visitor: Visitor) -> dict[str, str]:
    token = visitor.csrf_token("/account")
    return {"X-CSRFToken": token, "Referer": f"https://localhost{PAGE}"}


def test_a_token_is_shown_once_and_stored_as_a_hash(
    visitor: Visitor, app: Flask, ada: str
):
    visitor.sign_in(ada)
    token = make_on_page(visitor)
    page = visitor.get(PAGE).text
    assert "Report" in page
    assert token not in page
    with app.app_context():
        for table in ("access_tokens", "sessions", "security_events", "outgoing_mail"):
            rows = db.session.execute(text(f"SELECT * FROM {table}")).all()
            assert rows, table
            assert token not in str(rows)
            assert token.removeprefix("bwk_") not in str(rows)


def test_no_browser_wants_every_permission_ticked(visitor: Visitor, ada: str):
    visitor.sign_in(ada)
    boxes = re.findall(r'<input[^>]+type="checkbox"[^>]*>', visitor.get(PAGE).text)
    assert len(boxes) >= 3
    assert [box for box in boxes if "required" in box] == []


def test_the_page_with_the_token_is_kept_by_no_cache(visitor: Visitor, ada: str):
    visitor.sign_in(ada)
    answer = visitor.submit(
        PAGE, {"name": "Report", "permissions": "users:read", "days": "7"}
    )
    assert "no-store" in answer.headers["Cache-Control"]


@pytest.mark.parametrize("days", [1, 7, 30, 90, 365])
def test_a_token_expires_after_the_days_that_were_chosen(
    visitor: Visitor, app: Flask, ada: str, days: int
):
    visitor.sign_in(ada)
    visitor.submit(PAGE, {"name": "R", "permissions": "users:read", "days": str(days)})
    with app.app_context():
        token = db.session.scalars(select(AccessToken)).one()
        assert token.expires_at - token.created_at == timedelta(days=days)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("name", "", "Enter a name"),
        ("name", "   ", "Enter a name"),
        ("name", "x" * 65, "64 characters at most"),
        ("name", "a\u202eb", "letters, digits"),
        ("permissions", [], "Choose at least one"),
        ("permissions", "made:up", "valid choice"),
        ("days", "36500", "valid choice"),
        ("days", "", "valid choice"),
    ],
    ids=["none", "blank", "long", "bidi", "nothing", "unknown", "ages", "never"],
)
def test_a_wrong_form_shows_what_is_wrong_and_keeps_what_was_entered(
    visitor: Visitor, app: Flask, ada: str, field: str, value: str, message: str
):
    visitor.sign_in(ada)
    form = {"name": "Report", "permissions": "users:read", "days": "7"}
    answer = visitor.submit(PAGE, form | {field: value})
    assert message.lower() in answer.text.lower()
    if field != "name":
        assert 'value="Report"' in answer.text
    with app.app_context():
        assert db.session.scalars(select(AccessToken)).all() == []


def test_nobody_gives_a_token_what_they_may_not_do_themselves(
    visitor: Visitor, app: Flask, person: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(app.extensions, "everyone", frozenset())
    visitor.sign_in(person)
    assert "a token would have none" in visitor.get(PAGE).text
    visitor.client.post(
        PAGE,
        json={"name": "R", "permissions": ["users:read"], "days": 7},
        headers=csrf(visitor),
    )
    with app.app_context():
        assert db.session.scalars(select(AccessToken)).all() == []


def test_the_page_works_in_json_too(visitor: Visitor, ada: str):
    visitor.sign_in(ada)
    made = visitor.client.post(
        PAGE,
        json={"name": "Report", "permissions": ["users:read"], "days": 7},
        headers=csrf(visitor),
    )
    assert made.status_code == 201
    token = made.get_json()
    assert visitor.get(READ, headers=bearer(token["token"])).status_code == 200
    (listed,) = visitor.get(PAGE, headers={"Accept": "application/json"}).get_json()[
        "tokens"
    ]
    assert listed["permissions"] == ["users:read"]
    assert listed["last_used_at"]
    assert "token" not in listed
    revoked = visitor.client.post(
        f"{PAGE}/{listed['id']}/revoke", json={}, headers=csrf(visitor)
    )
    assert revoked.get_json() == {"revoked": listed["id"]}
    assert visitor.get(READ, headers=bearer(token["token"])).status_code == 401


GOOD = {"name": "R", "permissions": ["users:read"], "days": 7}


@pytest.mark.parametrize(
    "body",
    [
        [],
        "text",
        {},
        GOOD | {"name": 5},
        GOOD | {"name": None},
        GOOD | {"name": {"a": []}},
        GOOD | {"name": "\ud800"},
        GOOD | {"permissions": [{}]},
        GOOD | {"permissions": {"users:read": True}},
        GOOD | {"permissions": None},
        GOOD | {"days": {}},
        GOOD | {"days": 7.5},
        GOOD | {"days": -7},
        GOOD | {"days": None},
    ],
    ids=range(14),
)
def test_json_of_any_shape_is_refused_in_words(visitor: Visitor, ada: str, body: Any):
    visitor.sign_in(ada)
    answer = visitor.client.post(PAGE, json=body, headers=csrf(visitor))
    assert answer.status_code == 400
    assert answer.get_json()["error"]


def test_somebody_revokes_a_token(visitor: Visitor, app: Flask, ada: str):
    token = make_token(app, ada, "users:read")
    visitor.sign_in(ada)
    page = visitor.get(PAGE).text
    path = re.search(r'action="(/account/tokens/\d+/revoke)"', page)
    assert path
    assert visitor.get(READ, headers=bearer(token)).status_code == 200
    for _ in range(2):  # Once more does no harm, and is no second event.
        data = {"csrf_token": visitor.csrf_token(PAGE)}
        visitor.client.post(
            path[1], data=data, headers={"Referer": f"https://localhost{PAGE}"}
        )
    assert visitor.get(READ, headers=bearer(token)).status_code == 401
    with app.app_context():
        names = db.session.scalars(select(SecurityEvent.name)).all()
    assert names.count("authn_token_revoked") == 1
    assert "Revoked <time" in visitor.get(PAGE).text


@pytest.mark.parametrize("which", ["of somebody else", "of nobody", "absurd"])
def test_nobody_revokes_what_is_not_theirs(
    visitor: Visitor, app: Flask, ada: str, person: str, which: str
):
    token = make_token(app, ada, "users:read")
    with app.app_context():
        theirs = db.session.scalars(select(AccessToken.id)).one()
    number = {"of somebody else": theirs, "of nobody": 424242, "absurd": 10**30}[which]
    visitor.sign_in(person)
    answer = visitor.client.post(
        f"{PAGE}/{number}/revoke", json={}, headers=csrf(visitor)
    )
    assert answer.status_code == 404
    assert visitor.get(READ, headers=bearer(token)).status_code == 200


def test_the_page_asks_again_who_you_are_after_a_while(
    visitor: Visitor, ada: str, monkeypatch: pytest.MonkeyPatch
):
    visitor.sign_in(ada)
    monkeypatch.setattr(access, "_is_recent", lambda: False)
    assert "/verify" in visitor.get(PAGE).headers["Location"]
