"""Idempotency keys: what is sent twice is carried out once, and answered alike."""

import threading
from base64 import b64encode
from datetime import timedelta

import pytest
from flask import Flask
from sqlalchemy import delete, func, select, text, update

from bulwark.api.blueprint import Api
from bulwark.database import db, utcnow
from bulwark.web import idempotency
from bulwark.web.idempotency import IdempotentRequest
from tests.bulwark.api.conftest import Script
from tests.bulwark.api.notes import EVERYONE, api, rows
from tests.conftest import add_person
from tests.support import make_token

MILK = {"title": "Milk"}
KEY = {"Idempotency-Key": "8e03978e-40d5-43dd-bc93-6894a57f9324"}


def count() -> int:
    """Return how many notes there are."""
    return db.session.scalar(select(func.count()).select_from(rows)) or 0


@pytest.fixture(autouse=True)
def keys(notes: Flask):
    """What a test stores is gone after it."""
    yield
    with notes.app_context():
        db.session.execute(delete(IdempotentRequest))
        db.session.commit()


def test_a_repeated_request_is_carried_out_once(notes: Flask, script: Script):
    first = script.call("POST", "/notes", json=MILK, headers=KEY)
    again = script.call("POST", "/notes", json=MILK, headers=KEY)
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.data == first.data
    assert again.mimetype == first.mimetype
    assert "Idempotent-Replayed" not in first.headers
    assert again.headers["Idempotent-Replayed"] == "true"
    with notes.app_context():
        assert count() == 1


def test_a_key_may_be_a_quoted_string(script: Script):
    first = script.call("POST", "/notes", json=MILK, headers=KEY)
    quoted = {"Idempotency-Key": f'"{KEY["Idempotency-Key"]}"'}
    assert script.call("POST", "/notes", json=MILK, headers=quoted).data == first.data


def test_other_keys_and_requests_without_one_are_carried_out(
    notes: Flask, script: Script
):
    for headers in (KEY, {"Idempotency-Key": "other"}, {}, {}):
        assert script.call("POST", "/notes", json=MILK, headers=headers).get_json()
    with notes.app_context():
        assert count() == 4


@pytest.mark.parametrize(
    ("path", "body"), [("/notes", {"title": "Bread"}), ("/notes?x=1", MILK)]
)
def test_a_key_of_another_request_is_refused(script: Script, path: str, body: object):
    script.call("POST", "/notes", json=MILK, headers=KEY)
    refused = script.call("POST", path, json=body, headers=KEY)
    assert refused.status_code == 422
    assert "new key" in refused.get_json()["detail"]


def test_what_was_refused_may_be_corrected(notes: Flask, script: Script):
    refused = script.call("POST", "/notes", json={"title": ""}, headers=KEY)
    assert refused.status_code == 422
    assert script.call("POST", "/notes", json=MILK, headers=KEY).status_code == 201


def test_the_key_of_one_user_is_nothing_to_another(notes: Flask, script: Script):
    first = script.call("POST", "/notes", json=MILK, headers=KEY)
    add_person(notes, "bob@example.org")
    bob = Script(notes, script.mailbox, make_token(notes, "bob@example.org", *EVERYONE))
    other = bob.call("POST", "/notes", json=MILK, headers=KEY)
    assert other.get_json()["id"] != first.get_json()["id"]


@pytest.mark.parametrize("key", ["", '""', "x" * 256, "a b", "\u00e9", "a\tb"])
def test_a_malformed_key_is_refused(notes: Flask, script: Script, key: str):
    headers = {"Idempotency-Key": key}
    refused = script.call("POST", "/notes", json=MILK, headers=headers)
    assert refused.status_code == 400
    with notes.app_context():
        assert count() == 0


def test_a_visitor_has_no_keys(notes: Flask, script: Script):
    csrf = {"X-CSRFToken": script.csrf_token("/reset"), "Referer": "https://localhost/"}
    refused = script.client.post("/api/v1/public", headers=KEY | csrf)
    assert refused.status_code == 400
    assert "access token" in refused.get_json()["detail"]


def test_an_error_after_the_changes_is_not_repeated(notes: Flask, script: Script):
    failed = script.call("POST", "/failing", headers=KEY)
    again = script.call("POST", "/failing", headers=KEY)
    assert (failed.status_code, again.status_code) == (500, 409)
    assert "carried out" in again.get_json()["detail"]
    with notes.app_context():
        assert count() == 1


def test_what_the_view_did_not_commit_is_not_kept(notes: Flask, script: Script):
    for _ in range(2):
        assert script.call("POST", "/forgetful", headers=KEY).status_code == 204
    with notes.app_context():
        assert count() == 0
        assert not db.session.scalars(select(IdempotentRequest)).all()


def test_a_long_response_is_not_stored(
    notes: Flask, script: Script, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(idempotency, "RESPONSE_LENGTH", 5)
    assert script.call("POST", "/notes", json=MILK, headers=KEY).status_code == 201
    assert script.call("POST", "/notes", json=MILK, headers=KEY).status_code == 409


def test_neither_keys_nor_responses_are_legible(notes: Flask, script: Script):
    sent = script.call("POST", "/notes", json=MILK, headers=KEY)
    with notes.app_context():
        row = db.session.execute(text("SELECT * FROM idempotent_requests")).one()
    stored = b" ".join(
        bytes(v) if isinstance(v, bytes | memoryview) else str(v).encode() for v in row
    )
    assert KEY["Idempotency-Key"].encode() not in stored
    assert b64encode(sent.data) not in stored


def test_requests_at_the_same_time_are_carried_out_once(notes: Flask, script: Script):
    together, answers = threading.Barrier(6, timeout=30), []

    def send() -> None:
        own = Script(notes, script.mailbox, script.token)
        together.wait()
        answers.append(own.call("POST", "/notes", json=MILK, headers=KEY))

    threads = [threading.Thread(target=send) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    statuses = {answer.status_code for answer in answers}
    assert 201 in statuses
    # 409: not yet stored. 503: SQLite's only writer was busy for too long.
    assert statuses <= {201, 409, 503}
    assert len({a.data for a in answers if a.status_code == 201}) == 1
    with notes.app_context():
        assert count() == 1


def test_keys_are_forgotten_after_a_day(notes: Flask, script: Script):
    script.call("POST", "/notes", json=MILK, headers=KEY)
    with notes.app_context():
        idempotency.forget_old.call_local()
        assert db.session.scalars(select(IdempotentRequest)).all()
        past = utcnow() - timedelta(seconds=1)
        db.session.execute(update(IdempotentRequest).values(expires_at=past))
        idempotency.forget_old.call_local()
        assert not db.session.scalars(select(IdempotentRequest)).all()


def test_the_description_names_the_header(notes: Flask):
    assert isinstance(api, Api)
    with notes.test_request_context("/api/v1/notes"):
        paths = api._document()["paths"]
    for path, method, expected in (
        ("/api/v1/notes", "post", True),
        ("/api/v1/notes", "get", False),
    ):
        parameters = paths[path][method].get("parameters", [])
        named = any(p["name"] == "Idempotency-Key" for p in parameters)
        assert named is expected
