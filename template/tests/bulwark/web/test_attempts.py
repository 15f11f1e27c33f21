"""Attempts: counted in the database, by a keyed hash of their target."""

from datetime import timedelta

import pytest
from flask import Flask
from sqlalchemy import select

from bulwark.database import db
from bulwark.web import attempts


def test_attempts_are_counted_undone_and_forgotten(app: Flask):
    hour = timedelta(hours=1)
    with app.app_context():
        assert attempts.count("tea", "zoe", hour).count == 1
        assert attempts.count("tea", "zoe", hour).count == 2
        assert attempts.count("tea", "max", hour).count == 1
        attempts.undo("tea", "zoe")
        assert attempts.count("tea", "zoe", hour).count == 2
        assert attempts.forget(("tea", "zoe"), ("tea", "nobody")) == 2
        assert attempts.count("tea", "zoe", hour).count == 1


def test_a_window_begins_with_its_first_attempt_and_ends(
    app: Flask, monkeypatch: pytest.MonkeyPatch
):
    minute = timedelta(minutes=1)
    with app.app_context():
        first = attempts.count("tea", "zoe", minute)
        assert attempts.count("tea", "zoe", minute).expires_at == first.expires_at
        assert 55 < first.seconds_left <= 60
        later = first.expires_at + timedelta(seconds=1)
        monkeypatch.setattr(attempts, "utcnow", lambda: later)
        assert attempts.count("tea", "zoe", minute).count == 1


def test_the_target_of_an_attempt_is_not_readable_in_the_table(app: Flask):
    with app.app_context():
        attempts.count("password", "zoe@example.org", timedelta(hours=1))
        (row,) = db.session.scalars(select(attempts.Guess))
        assert "zoe" not in row.key
        assert len(row.key) == 64


def test_windows_that_have_ended_are_deleted(app: Flask):
    with app.app_context():
        attempts.count("tea", "zoe", timedelta(seconds=-1))
        attempts.count("tea", "max", timedelta(hours=1))
        attempts.forget_old.call_local()
        assert len(db.session.scalars(select(attempts.Guess)).all()) == 1
