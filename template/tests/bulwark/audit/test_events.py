"""Events: each action is recorded once, in the table and the log, without secrets."""

import io
import json
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from flask import Flask
from passlib.totp import TOTP
from sqlalchemy import select, update

import bulwark
from bulwark.audit import events
from bulwark.audit.catalogue import CATALOGUE
from bulwark.audit.events import SecurityEvent
from bulwark.audit.trail import AuditLink
from bulwark.database import db, utcnow
from bulwark.identity import hashed_tokens, tokens
from bulwark.identity.sessions import UserSession
from bulwark.observability import logging as bulwark_logging
from tests.conftest import GOOD_PASSWORD, Visitor, add_person, totp_code
from tests.passkey import SoftwarePasskey
from tests.support import (
    ask,
    begin_app,
    register,
    use,
)

NEW_PASSWORD = "seven brass kettles whistle"
WRONG = "a wrong password"
# Who it concerns, who did it, and the details, by the name of the event.
Recorded = tuple[str, str | None, str | None, dict[str, Any]]


@dataclass
class Watch:
    """Shows what was recorded since it was last asked."""

    app: Flask
    out: io.StringIO
    rows: int = 0
    lines: int = 0

    def new(self) -> list[Recorded]:
        """Return the new events; each is one row and one line that say the same."""
        with self.app.app_context():
            rows = db.session.scalars(
                select(SecurityEvent)
                .where(SecurityEvent.id > self.rows)
                .order_by(SecurityEvent.id)
            ).all()
            people = {
                person.id: person.email.partition("@")[0]
                for person in db.session.scalars(select(self._person()))
            }
        written = [json.loads(line) for line in self.out.getvalue().splitlines()]
        kept = {name for name, kind in CATALOGUE.items() if kind.audited}
        lines = [line for line in written[self.lines :] if line["event"] in kept]
        self.lines = len(written)
        self.rows = max([self.rows, *(row.id for row in rows)])
        assert len(lines) == len(rows)
        for row, line in zip(rows, lines, strict=True):
            self._agree(row, line)
        return [
            (
                row.name,
                people.get(row.user_id),
                people.get(row.actor_id),
                row.details,
            )
            for row in rows
        ]

    def all_text(self) -> str:
        """Return all that was ever written, in the table and the log."""
        with self.app.app_context():
            table = SecurityEvent.__table__
            rows = [tuple(row) for row in db.session.execute(select(table))]
        return f"{rows}\n{self.out.getvalue()}"

    def _person(self) -> Any:
        return self.app.extensions["security"].datastore.user_model

    def _agree(self, row: SecurityEvent, line: dict[str, Any]) -> None:
        settings = self.app.extensions["bulwark"]
        expected = {
            "event": row.name,
            "level": logging.getLevelName(row.kind.level).lower(),
            "description": row.kind.meaning,
            "service": settings.slug,
            "host": settings.domain,
            "version": settings.version,
            "logger": "bulwark",
            "user_id": row.user_id,
            "actor_id": row.actor_id,
            "address": row.address,
            "network": row.address,
            "user_agent": row.user_agent,
            "session": row.session,
            "request_id": row.request_id,
            "method": row.method,
            "route": row.route,
            "reason": row.reason,
            **row.details,
        }
        with self.app.app_context():
            link = db.session.scalars(
                select(AuditLink).where(AuditLink.event_id == row.id)
            ).one()
        assert line.pop("audit") == f"{link.position}:{link.mac.hex()}"
        if row.method is None:
            line.pop("request_id", None)  # Left over from a request of the test.
        moment = datetime.fromisoformat(line.pop("timestamp"))
        assert moment.utcoffset() == timedelta(0)
        assert abs(moment - row.at) < timedelta(seconds=10)
        assert line == {k: v for k, v in expected.items() if v is not None}


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
    """The address of somebody who is signed in already."""
    visitor.sign_in(person)
    watch.new()
    return person


@pytest.fixture
def with_app(app: Flask) -> str:
    """The address of somebody with an authenticator app, who is not signed in."""
    return add_person(app, "zoe@example.org", totp=True)


def give_password(visitor: Visitor, email: str, password: str = GOOD_PASSWORD) -> None:
    visitor.submit("/login", {"email": email, "password": password})


def post(visitor: Visitor, path: str, page: str = "/account") -> int:
    data = {"csrf_token": visitor.csrf_token(page)}
    headers = {"Referer": f"https://localhost{page}"}
    return visitor.client.post(path, data=data, headers=headers).status_code


# --- Signing in and out ---------------------------------------------------------------


def test_signing_in_and_out(visitor: Visitor, watch: Watch, person: str):
    visitor.sign_in(person)
    assert watch.new() == [
        ("authn_login_success", "zoe", "zoe", {"factor": "password"})
    ]
    post(visitor, "/logout")
    assert watch.new() == [("authn_logout", "zoe", "zoe", {})]


def test_signing_in_with_another_device(
    visitor: Visitor, other_visitor: Visitor, watch: Watch, zoe: str
):
    other_visitor.sign_in(zoe)
    details = {"factor": "password", "new_device": True}
    assert watch.new() == [("authn_login_success", "zoe", "zoe", details)]


def test_a_wrong_password_and_then_the_right_one(
    visitor: Visitor, watch: Watch, person: str
):
    give_password(visitor, person, WRONG)
    failed = ("authn_login_fail", "zoe", None, {"factor": "password"})
    assert watch.new() == [failed]
    visitor.sign_in(person)
    assert watch.new() == [
        ("authn_login_successafterfail", "zoe", "zoe", {"factor": "password"})
    ]


def test_a_wrong_address(visitor: Visitor, watch: Watch):
    give_password(visitor, "alien@example.org", WRONG)
    assert watch.new() == [("authn_login_fail", None, None, {"factor": "password"})]


def test_the_right_password_of_a_locked_account(
    visitor: Visitor, app: Flask, watch: Watch, person: str
):
    with app.app_context():
        found = app.extensions["security"].datastore.find_user(email=person)
        found.active = False
        db.session.commit()
    give_password(visitor, person)
    assert watch.new() == [("authn_login_fail", "zoe", None, {"factor": "password"})]


def test_guessing_a_password_until_it_is_refused(
    visitor: Visitor, watch: Watch, person: str
):
    for _ in range(12):
        give_password(visitor, person, WRONG)
    failed = ("authn_login_fail", "zoe", None, {"factor": "password"})
    limit = ("authn_login_fail_max", "zoe", None, {"factor": "password", "told": True})
    assert watch.new() == [failed] * 10 + [limit]


# --- Accounts -------------------------------------------------------------------------


def test_signing_up(visitor: Visitor, watch: Watch):
    visitor.submit("/register", {"email": "new@example.org"})
    assert watch.new() == []
    visitor.submit(visitor.link_in_last_letter(), {"password": GOOD_PASSWORD})
    assert watch.new() == [("user_created", "new", "new", {})]


def test_changing_the_password(visitor: Visitor, watch: Watch, zoe: str):
    form = {"password": WRONG, "new_password": NEW_PASSWORD}
    visitor.submit("/change", form)
    assert watch.new() == [("authn_password_change_fail", "zoe", "zoe", {})]
    visitor.submit("/change", form | {"password": GOOD_PASSWORD})
    assert watch.new() == [("authn_password_change", "zoe", "zoe", {})]


def test_setting_a_new_password_by_mail(visitor: Visitor, watch: Watch, person: str):
    visitor.submit("/reset", {"email": person})
    assert watch.new() == [("authn_reset_requested", "zoe", None, {})]
    visitor.submit(visitor.link_in_last_letter(), {"password": NEW_PASSWORD})
    assert watch.new() == [("authn_reset_completed", "zoe", "zoe", {})]


def test_asking_for_a_new_password_of_nobody(visitor: Visitor, watch: Watch):
    visitor.submit("/reset", {"email": "alien@example.org"})
    assert watch.new() == [("authn_reset_requested", None, None, {})]


def test_changing_the_address(visitor: Visitor, watch: Watch, zoe: str):
    visitor.submit("/change-email", {"email": "zoe@example.net"})
    assert watch.new() == [("user_email_change_requested", "zoe", "zoe", {})]
    visitor.submit(visitor.link_in_last_letter(), {})
    assert watch.new() == [("user_email_changed", "zoe", "zoe", {})]


def test_showing_who_you_are_before_a_sensitive_page(
    visitor: Visitor, watch: Watch, zoe: str
):
    visitor.submit("/verify", {"password": WRONG})
    assert watch.new() == [("authn_reauth_fail", "zoe", "zoe", {"factor": "password"})]
    visitor.submit("/verify", {"password": GOOD_PASSWORD})
    assert watch.new() == []


# --- Second factors -------------------------------------------------------------------


def test_adding_and_removing_an_authenticator_app(
    visitor: Visitor, watch: Watch, zoe: str
):
    key, state = begin_app(visitor)
    path = f"/account/authenticator/{state}"
    visitor.send(path, {"code": "000000"})
    assert watch.new() == []
    visitor.send(path, {"code": TOTP(key).generate().token})
    assert watch.new() == [("authn_mfa_enrolled", "zoe", "zoe", {"factor": "totp"})]
    visitor.send("/account/authenticator", {"setup": "disable"})
    assert watch.new() == [("authn_mfa_removed", "zoe", "zoe", {"factor": "totp"})]


def test_signing_in_with_an_authenticator_app(
    visitor: Visitor, app: Flask, watch: Watch, with_app: str
):
    give_password(visitor, with_app)
    assert watch.new() == []
    visitor.submit("/login/code", {"code": "000000"})
    failed = {"factor": "totp", "told": True}
    assert watch.new() == [("authn_mfa_fail", "zoe", None, failed)]
    visitor.submit("/login/code", {"code": totp_code(app, with_app)})
    assert watch.new() == [
        ("authn_mfa_success", "zoe", "zoe", {"factor": "totp"}),
        ("authn_login_successafterfail", "zoe", "zoe", {"factor": "password"}),
    ]


def test_making_and_using_recovery_codes(
    visitor: Visitor, other_visitor: Visitor, watch: Watch, with_app: str
):
    visitor.sign_in(with_app)
    watch.new()
    made = visitor.send("/account/recovery-codes", {}).get_json()
    assert watch.new() == [("authn_recovery_codes_made", "zoe", "zoe", {})]
    give_password(other_visitor, with_app)
    other_visitor.submit("/login/recovery", {"code": "aaaa-bbbb-cccc-dddd"})
    failed = {"factor": "recovery_code", "told": True}
    assert watch.new() == [("authn_mfa_fail", "zoe", None, failed)]
    code = made["response"]["recovery_codes"][0]
    other_visitor.submit("/login/recovery", {"code": code})
    details = {"factor": "password", "new_device": True}
    assert watch.new() == [
        ("authn_recovery_code_used", "zoe", "zoe", {}),
        ("authn_login_successafterfail", "zoe", "zoe", details),
    ]


def test_adding_using_and_removing_a_passkey(visitor: Visitor, watch: Watch, zoe: str):
    key = SoftwarePasskey()
    register(visitor, key)
    assert watch.new() == [("authn_mfa_enrolled", "zoe", "zoe", {"factor": "passkey"})]
    post(visitor, "/logout")
    watch.new()

    use(visitor, key)
    alone = ("authn_login_success", "zoe", "zoe", {"factor": "passkey"})
    assert watch.new() == [alone]
    post(visitor, "/logout")
    watch.new()

    give_password(visitor, zoe)
    use(visitor, key)
    assert watch.new() == [
        ("authn_mfa_success", "zoe", "zoe", {"factor": "passkey"}),
        ("authn_login_success", "zoe", "zoe", {"factor": "password"}),
    ]
    visitor.send("/account/passkeys/remove", {"name": "Phone"})
    assert watch.new() == [("authn_mfa_removed", "zoe", "zoe", {"factor": "passkey"})]


def test_a_passkey_whose_answer_is_wrong(visitor: Visitor, watch: Watch, zoe: str):
    key = SoftwarePasskey()
    register(visitor, key)
    options, state = ask(visitor, "/verify/passkey")
    key.verifies = False
    visitor.send(f"/verify/passkey/{state}", {"credential": key.sign(options)})
    assert watch.new()[1:] == [
        ("authn_reauth_fail", "zoe", "zoe", {"factor": "passkey"})
    ]
    post(visitor, "/logout")
    watch.new()
    use(visitor, key)
    assert watch.new() == [("authn_login_fail", "zoe", None, {"factor": "passkey"})]
    give_password(visitor, zoe)
    use(visitor, key)
    failed = {"factor": "passkey", "told": True}
    assert watch.new() == [("authn_mfa_fail", "zoe", None, failed)]


# --- Sessions, tokens, permissions ----------------------------------------------------


def test_signing_out_other_sessions(
    visitor: Visitor, other_visitor: Visitor, watch: Watch, zoe: str
):
    other_visitor.sign_in(zoe)
    watch.new()
    post(visitor, "/account/sessions/end-others")
    assert watch.new() == [("session_revoked", "zoe", "zoe", {"ended": 1})]
    post(visitor, "/account/sessions/end-others")
    assert watch.new() == []


def test_a_session_that_is_over(visitor: Visitor, app: Flask, watch: Watch, zoe: str):
    with app.app_context():
        long_ago = utcnow() - timedelta(hours=25)
        db.session.execute(update(UserSession).values(created_at=long_ago))
        db.session.commit()
    visitor.get("/account")
    assert watch.new() == [("session_expired", "zoe", "zoe", {})]
    visitor.get("/account")
    assert watch.new() == []


def test_making_using_and_revoking_an_access_token(
    visitor: Visitor, app: Flask, watch: Watch
):
    visitor.sign_in(add_person(app, "ada@example.org", "administrator"))
    watch.new()
    body = {"name": "Report", "permissions": ["users:read"], "days": 7}
    made = visitor.send("/account/tokens", body).get_json()
    number = made["id"]
    details = {"token_id": number, "permissions": ["users:read"], "days": 7}
    assert watch.new() == [("authn_token_created", "ada", "ada", details)]

    headers = {"Authorization": f"Bearer {made['token']}"}
    assert visitor.get("/admin/users", headers=headers).status_code == 200
    assert watch.new() == []
    visitor.get("/admin/roles", headers=headers)
    visitor.get("/account", headers=headers)
    asked = [("authz_fail", "ada", "ada", {"permission": "signed in"})]
    assert watch.new()[-1:] == asked

    visitor.send(f"/account/tokens/{number}/revoke", {})
    revoked = ("authn_token_revoked", "ada", "ada", {"token_id": number})
    assert watch.new() == [revoked]
    visitor.get("/admin/users", headers=headers)
    reused = ("authn_token_reuse", "ada", None, {"token_id": number})
    assert watch.new() == [reused]


def test_asking_for_what_one_may_not_do(visitor: Visitor, watch: Watch, zoe: str):
    assert visitor.get("/admin/users").status_code == 403
    details = {"permission": "users:read"}
    assert watch.new() == [("authz_fail", "zoe", "zoe", details)]


# --- All of them ----------------------------------------------------------------------


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
    happen = set(re.findall(r'(?:record|emit|explained)\(\s*f?"(\w+)', source))
    happen |= {"authn_login_successafterfail", "sys_startup", "sys_shutdown"}
    happen.add("sys_audit_pruned")
    assert CATALOGUE.keys() == happen


def test_an_unknown_name_is_an_error(app: Flask):
    with app.app_context(), pytest.raises(KeyError):
        events.record("authn_login_sucess")


def test_an_event_shows_no_secret_and_no_address(
    visitor: Visitor, other_visitor: Visitor, app: Flask, watch: Watch, zoe: str
):
    canaries = {zoe, GOOD_PASSWORD, WRONG, NEW_PASSWORD, "canary"}
    give_password(other_visitor, GOOD_PASSWORD, WRONG)
    give_password(other_visitor, "canary@example.org", WRONG)
    other_visitor.submit("/reset", {"email": zoe})
    canaries.add(other_visitor.link_in_last_letter().removeprefix("/reset/"))
    key, state = begin_app(visitor)
    code = TOTP(key).generate().token
    visitor.send(f"/account/authenticator/{state}", {"code": code})
    made = visitor.send("/account/recovery-codes", {}).get_json()
    recovery = made["response"]["recovery_codes"]
    canaries |= {key, state, code, *recovery}
    give_password(other_visitor, zoe)
    other_visitor.submit("/login/recovery", {"code": recovery[0]})
    visitor.submit("/change-email", {"email": "canary@example.net"})
    link = visitor.link_in_last_letter()
    canaries.add(link.rpartition("/")[2])
    visitor.submit(link, {})
    with app.app_context():
        owner = app.extensions["security"].datastore.find_user(
            email="canary@example.net"
        )
        token, _ = tokens.make(owner, "canary", ["users:read"], 1)
        db.session.commit()
    canaries.add(token)
    visitor.get("/admin/users", headers={"Authorization": f"Bearer {token}"})
    visitor.get(f"/admin/users?secret={GOOD_PASSWORD}")
    for someone in (visitor, other_visitor):
        for cookie in ("__Host-session", "__Host-device"):
            found = someone.client.get_cookie(cookie)
            assert found
            canaries.add(found.value)
    text = watch.all_text()
    assert len(watch.new()) >= 9
    assert [canary for canary in canaries if canary in text] == []


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
