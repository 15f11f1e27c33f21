"""Recording: a commit decides, the catalogue names all, and no value breaks a line."""

import re
from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy import select

import bulwark
from bulwark.audit import events
from bulwark.audit.catalogue import CATALOGUE
from bulwark.audit.events import SecurityEvent
from bulwark.database import db
from bulwark.identity import hashed_tokens
from tests.bulwark.audit.support import WRONG, Watch, post
from tests.conftest import Visitor


def test_what_is_rolled_back_is_neither_kept_nor_logged(
    app: Flask, watch: Watch, person: str
):
    with app.app_context():
        events.record("authn_login_lock")
        db.session.flush()
        db.session.rollback()
        events.record("authn_login_unlock")
        db.session.commit()
    assert [name for name, *_ in watch.new()] == ["authn_login_unlock"]


def test_what_a_savepoint_keeps_is_logged_with_the_whole_only(app: Flask, watch: Watch):
    with app.app_context():
        with db.session.begin_nested():
            events.record("authn_login_lock")
        assert "authn_login_lock" not in watch.out.getvalue()
        nested = db.session.begin_nested()
        events.record("authn_mfa_removed")
        db.session.flush()
        nested.rollback()
        db.session.commit()
    assert [name for name, *_ in watch.new()] == ["authn_login_lock"]


def test_a_request_that_fails_inside_records_nothing(
    visitor: Visitor, app: Flask, watch: Watch, zoe: str, monkeypatch
):
    def fail() -> None:
        events.record("authn_login_lock")
        db.session.flush()
        raise ZeroDivisionError

    fail.access = "public"  # type: ignore[attr-defined]
    monkeypatch.setitem(app.view_functions, "account.index", fail)
    monkeypatch.setitem(app.config, "PROPAGATE_EXCEPTIONS", False)
    assert visitor.get("/account").status_code == 500
    assert watch.new() == []


def test_the_catalogue_names_only_what_happens():
    base = Path(bulwark.__file__).parent
    others = [path for path in base.rglob("*.py") if path.name != "events.py"]
    source = "".join(p.read_text() for p in others if p.name != "notifications.py")
    happen = set(re.findall(r'(?:record|emit|failures_as)\(\s*f?"(\w+)', source))
    happen |= {"authn_login_successafterfail", "sys_startup", "sys_shutdown"}
    happen.add("sys_audit_pruned")
    assert CATALOGUE.keys() == happen


def test_an_unknown_name_is_an_error(app: Flask):
    with app.app_context(), pytest.raises(KeyError):
        events.record("authn_login_sucess")


def test_a_session_is_named_by_a_part_of_its_hash(
    visitor: Visitor, app: Flask, watch: Watch, zoe: str
):
    cookie = visitor.client.get_cookie("__Host-session")
    assert cookie
    post(visitor, "/logout")
    with app.app_context():
        mark = db.session.scalars(
            select(SecurityEvent.session).where(SecurityEvent.name == "authn_logout")
        ).one()
    assert mark == hashed_tokens.hash_of(cookie.value)[:16]


@pytest.mark.parametrize(
    "hostile",
    ["a\u2028b", "\x1b[31mred", '"}{"event": "forged"}', "é" * 300],
    ids=["line", "colour", "json", "long"],
)
def test_no_user_agent_breaks_a_line(
    visitor: Visitor, watch: Watch, person: str, hostile: str
):
    headers = {"User-Agent": hostile.encode().decode("latin-1")}
    visitor.submit("/login", {"email": person, "password": WRONG}, headers=headers)
    assert [name for name, *_ in watch.new()] == ["authn_login_fail"]
