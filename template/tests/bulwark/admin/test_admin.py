"""Administration: what administrators do to accounts, each act with one event."""

import html
import json
import re
import sqlite3
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from urllib.parse import unquote

import pytest
from flask import Flask
from sqlalchemy import event, func, inspect, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session, registry, relationship
from werkzeug.test import TestResponse

from app.models import User
from bulwark import admin
from bulwark.admin import history
from bulwark.audit import events, trail
from bulwark.audit.events import SecurityEvent
from bulwark.audit.pending import pending_events
from bulwark.audit.trail import AuditLink
from bulwark.database import db, utcnow
from bulwark.identity import sessions, users
from bulwark.identity.models import Passkey, Role, users_roles
from tests.conftest import GOOD_PASSWORD, Visitor, add_person
from tests.support import JSON, user_path

WHY = {"reason": "Their laptop was stolen"}
ACTS = ("lock", "unlock", "reset", "second-factor/require", "sessions/end")


@pytest.fixture
def zoe(person: str, other_visitor: Visitor) -> Visitor:
    """Somebody without a role who is signed in."""
    other_visitor.sign_in(person)
    return other_visitor


def id_of(app: Flask, email: str) -> int:
    return int(user(app, email).id)


def user(app: Flask, email: str) -> Any:
    with app.app_context():
        found = app.extensions["security"].datastore.find_user(email=email)
        if found:
            assert isinstance(found.roles, list)
        return found


def recorded(app: Flask, *but: str) -> list[SecurityEvent]:
    """Return the events that are not of a sign-in."""
    with app.app_context():
        ignored = ("authn_login_success", "authn_mfa_success", *but)
        return list(
            db.session.scalars(
                select(SecurityEvent)
                .where(SecurityEvent.name.not_in(ignored))
                .order_by(SecurityEvent.id)
            )
        )


# --- Acts -----------------------------------------------------------------------------


def test_a_locked_person_is_out_at_once_and_stays_out(
    app: Flask, ada: Visitor, zoe: Visitor, person: str
):
    answer = ada.submit(user_path(app, person, "lock"), WHY)
    assert answer.location == user_path(app, person)
    assert "is locked and signed out" in ada.get(answer.location).text
    assert not zoe.is_signed_in()
    zoe.sign_in(person)
    assert not zoe.is_signed_in()


def test_a_lock_also_ends_what_waits_for_a_second_factor(
    app: Flask, ada: Visitor, other_visitor: Visitor
):
    email = add_person(app, "zoe@example.org", totp=True)
    other_visitor.submit("/login", {"email": email, "password": GOOD_PASSWORD})
    assert other_visitor.get("/login/code").status_code == 200
    ada.submit(user_path(app, email, "lock"), WHY)
    with app.app_context():
        rows = select(func.count()).select_from(sessions.UserSession)
        assert db.session.scalar(rows) == 1  # Ada's own
    assert other_visitor.get("/login/code").status_code == 302


def test_an_act_is_one_event_with_who_whom_what_and_why(
    app: Flask, ada: Visitor, person: str
):
    ada.submit(user_path(app, person, "lock"), WHY)
    (event,) = recorded(app)
    assert event.name == "authn_login_lock"
    assert event.actor_id == id_of(app, "ada@example.org")
    assert event.user_id == id_of(app, person)
    assert event.reason == WHY["reason"]


def test_each_act_records_exactly_one_event(app: Flask, ada: Visitor, person: str):
    acts = {
        "lock": ("authn_login_lock", {}),
        "unlock": ("authn_login_unlock", {}),
        "second-factor/require": (
            "authz_admin",
            {"action": "require_second_factor"},
        ),
        "second-factor/allow-without": (
            "authz_admin",
            {"action": "no_longer_require_second_factor"},
        ),
        "sessions/end": ("session_revoked", {"ended": 0}),
        "reset": ("authz_admin", {"action": "force_reset"}),
    }
    for act in acts:
        assert ada.submit(user_path(app, person, act), WHY).status_code == 302, act
    events = recorded(app)
    assert [(event.name, event.details) for event in events] == list(acts.values())
    assert {event.reason for event in events} == {WHY["reason"]}


def test_an_unlocked_person_signs_in_again(
    app: Flask, ada: Visitor, person: str, other_visitor: Visitor
):
    ada.submit(user_path(app, person, "lock"), WHY)
    ada.submit(user_path(app, person, "unlock"), WHY)
    other_visitor.sign_in(person)
    assert other_visitor.is_signed_in()


def test_a_forced_reset_lets_only_the_owner_choose_the_password(
    app: Flask, ada: Visitor, zoe: Visitor, person: str
):
    answer = ada.submit(user_path(app, person, "reset"), WHY)
    assert not zoe.is_signed_in()
    zoe.sign_in(person)
    assert not zoe.is_signed_in()
    letter = zoe.letters()[-1]
    assert letter["To"] == person
    link = zoe.link_in_last_letter()
    assert link not in ada.get(answer.location).text
    zoe.submit(link, {"password": "seven brass kettles whistle"})
    zoe.sign_in(person, "seven brass kettles whistle")
    assert zoe.is_signed_in()


def test_a_forced_reset_keeps_the_second_factor(app: Flask, ada: Visitor):
    email = add_person(app, "zoe@example.org", totp=True)
    ada.submit(user_path(app, email, "reset"), WHY)
    assert user(app, email).sealed_totp_secret


def test_a_forced_reset_makes_earlier_links_useless(
    app: Flask, ada: Visitor, person: str, other_visitor: Visitor
):
    other_visitor.submit("/reset", {"email": person})
    earlier = other_visitor.link_in_last_letter()
    ada.submit(user_path(app, person, "reset"), WHY)
    assert other_visitor.get(earlier).location == "/reset"


def test_a_required_second_factor_is_asked_for_at_the_next_request(
    app: Flask, ada: Visitor, zoe: Visitor, person: str
):
    ada.submit(user_path(app, person, "second-factor/require"), WHY)
    assert zoe.get("/account").location == "/account/second-factor"
    ada.submit(user_path(app, person, "second-factor/allow-without"), WHY)
    assert zoe.get("/account").status_code == 200


def test_one_session_is_ended_and_the_others_stay(
    app: Flask, ada: Visitor, zoe: Visitor, person: str, mailbox: Any
):
    phone = Visitor(app, mailbox)
    phone.sign_in(person)
    with app.app_context():
        newest = sessions.for_user(user(app, person))[0].id
    answer = ada.submit(user_path(app, person, f"sessions/{newest}/end"), WHY)
    assert answer.status_code == 302
    assert zoe.is_signed_in()
    assert not phone.is_signed_in()
    assert recorded(app)[-1].details == {"ended": 1}


def test_all_sessions_are_ended(app: Flask, ada: Visitor, zoe: Visitor, person: str):
    ada.submit(user_path(app, person, "sessions/end"), WHY)
    assert not zoe.is_signed_in()
    assert ada.is_signed_in()


def test_a_session_is_ended_through_its_owner_only(
    app: Flask, ada: Visitor, zoe: Visitor, person: str
):
    other = add_person(app, "eve@example.org")
    with app.app_context():
        (session,) = sessions.for_user(user(app, person))
    wrong = user_path(app, other, f"sessions/{session.id}/end")
    assert ada.get(wrong).status_code == 404
    assert zoe.is_signed_in()


def test_a_user_is_invited_by_email_and_chooses_a_password(
    app: Flask, ada: Visitor, other_visitor: Visitor
):
    ada.submit("/admin/users/invite", {"email": "New@Example.org", **WHY})
    (event,) = recorded(app)
    assert event.name == "user_created"
    assert not user(app, "new@example.org").confirmed_at
    link = other_visitor.link_in_last_letter()
    other_visitor.create_account(link)
    other_visitor.sign_in("new@example.org")
    assert other_visitor.is_signed_in()
    assert user(app, "new@example.org").confirmed_at


def test_who_did_not_use_an_invitation_gets_another(
    app: Flask, ada: Visitor, other_visitor: Visitor
):
    for _ in range(2):
        ada.submit("/admin/users/invite", {"email": "new@example.org", **WHY})
    assert len(other_visitor.letters()) == 2
    assert [e.name for e in recorded(app)] == ["user_created", "authz_admin"]


def test_who_cannot_be_invited_is_not(app: Flask, ada: Visitor, person: str):
    for email in (person, "no address", "a@b@c", "x" * 250 + "@example.org", ""):
        answer = ada.submit("/admin/users/invite", {"email": email, **WHY})
        assert "That did not work" in answer.text, email
    assert recorded(app) == []
    assert ada.letters() == []


# --- What is refused ------------------------------------------------------------------


def test_no_act_without_a_plain_reason(app: Flask, ada: Visitor, person: str):
    for reason in ("", "   ", "x" * 201, "two\nlines", "\x1b[31mred"):
        answer = ada.submit(user_path(app, person, "lock"), {"reason": reason})
        assert "That did not work" in answer.text, repr(reason)
    assert user(app, person).active
    assert recorded(app) == []


def test_opening_pages_changes_nothing(app: Flask, ada: Visitor, person: str):
    for act in ACTS:
        assert ada.get(user_path(app, person, act)).status_code == 200
    assert recorded(app) == []


def test_what_is_already_the_case_is_refused(app: Flask, ada: Visitor, person: str):
    answer = ada.submit(user_path(app, person, "unlock"), WHY)
    assert "This account is not locked." in answer.text
    assert recorded(app) == []


def test_what_does_not_exist_is_not_found(app: Flask, ada: Visitor):
    nobody, me = "/admin/users/2147483647", user_path(app, "ada@example.org")
    for unknown in (
        nobody,
        "/admin/users/99999999999999999999",
        *(f"{nobody}/{act}" for act in ACTS),
        f"{nobody}/sessions/1/end",
        f"{nobody}/roles/1/give",
        f"{me}/sessions/2147483647/end",
        f"{me}/roles/2147483647/give",
        f"{me}/roles/2147483647/take",
        "/admin/roles/2147483647",
        "/admin/roles/2147483647/delete",
    ):
        assert ada.get(unknown).status_code == 404, unknown


def test_fields_that_no_form_has_are_ignored(app: Flask, ada: Visitor, person: str):
    more = {"active": "", "email": "eve@example.org", "password": "x", "id": "1"}
    ada.submit(user_path(app, person, "second-factor/require"), WHY | more)
    ada.submit("/admin/users/invite", {"email": "new@example.org", **WHY, **more})
    found = user(app, person)
    assert (found.active, found.email) == (True, person)
    assert found.password
    assert user(app, "eve@example.org").password is None
    assert user(app, "eve@example.org").active


def test_acts_ask_again_after_a_quarter_of_an_hour_and_lead_back(
    app: Flask, ada: Visitor, person: str, monkeypatch: pytest.MonkeyPatch
):
    later = (utcnow() + timedelta(minutes=16)).replace(tzinfo=None)
    monkeypatch.setattr("flask_security.utils.naive_utcnow", lambda: later)
    lock = user_path(app, person, "lock")
    assert ada.get(lock).location == f"/verify?next={lock}"
    token = ada.csrf_token("/reset")
    answer = ada.client.post(
        lock,
        data={"csrf_token": token, **WHY},
        headers={"Referer": f"https://localhost{lock}"},
    )
    assert answer.location == f"/verify?next={lock}"
    assert user(app, person).active


# --- For scripts ----------------------------------------------------------------------


def test_a_script_does_what_the_pages_do(app: Flask, ada: Visitor, person: str):
    answer = ada.send(user_path(app, person, "lock"), WHY)
    assert answer.get_json() == {"done": f"{person} is locked and signed out."}
    again = ada.send(user_path(app, person, "lock"), WHY)
    assert again.status_code == 409
    assert again.get_json() == {"error": "This account is already locked."}
    unsaid = ada.send(user_path(app, person, "unlock"), {})
    assert unsaid.status_code == 400
    assert unsaid.get_json() == {"error": "Enter a reason."}


def test_a_body_of_another_kind_is_refused(app: Flask, ada: Visitor, person: str):
    bodies: list[Any] = [[], ["reason"], "text", 1, {"reason": 5}, {"reason": {}}]
    for body in [*bodies, {"reason": None}]:
        answer = ada.send(user_path(app, person, "lock"), body)
        assert answer.status_code == 400, body
    assert user(app, person).active


def test_a_script_reads_people_and_history(app: Flask, ada: Visitor, person: str):
    people = ada.get("/admin/users", headers=JSON).get_json()
    assert [one["email"] for one in people["users"]] == [person, "ada@example.org"]
    assert people["count"] == 2
    assert "password" not in people["users"][0]
    one = ada.get(user_path(app, person), headers=JSON).get_json()
    assert (one["email"], one["roles"], one["sessions"]) == (person, [], [])
    ada.submit(user_path(app, person, "lock"), WHY)
    history = ada.get("/admin/history", headers=JSON).get_json()
    assert history["events"][0]["name"] == "authn_login_lock"
    assert history["events"][0]["user"] == person
    roles = ada.get("/admin/roles", headers=JSON).get_json()["roles"]
    assert roles[0]["name"] == "administrator"
    assert roles[0]["people"] == 1


# --- Lists ----------------------------------------------------------------------------


def emails(ada: Visitor, query: str) -> list[str]:
    body = ada.get(f"/admin/users?{query}", headers=JSON).get_json()
    return [one["email"] for one in body["users"]]


def test_people_are_found(app: Flask, ada: Visitor, person: str):
    al, admin = add_person(app, "al_x@example.org"), "ada@example.org"
    ada.submit(user_path(app, al, "lock"), WHY)
    everybody = [al, person, admin]
    for query, found in {
        "q=zoe@example.org": [person],
        "q=ZOE": [person],
        "q=example.org": everybody,
        "q=@example": everybody,
        "q=l_x": [al],
        "q=z_e": [],
        "q=%25": [],
        "q='%20OR%201=1--": [],
        "role=administrator": [admin],
        "role=none": [],
        "locked=yes": [al],
        "locked=yes&role=administrator": [],
        "before=-1": [],
        "before=99999999999999999999": everybody,
        "before=x": everybody,
    }.items():
        assert emails(ada, query) == found, query


def test_a_list_of_people_goes_on_where_the_page_ended(
    app: Flask, ada: Visitor, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(admin.users, "PAGE", 2)
    monkeypatch.setattr(admin.users, "MOST_COUNTED", 3)
    for number in range(4):
        add_person(app, f"{number}@example.org")
    first = ada.get("/admin/users", headers=JSON).get_json()
    assert (first["count"], first["counted_all"]) == (3, False)
    pages = [[one["email"][0] for one in first["users"]]]
    while cursor := first["before"]:
        first = ada.get(f"/admin/users?before={cursor}", headers=JSON).get_json()
        pages.append([one["email"][0] for one in first["users"]])
    assert pages == [["3", "2"], ["1", "0"], ["a"]]
    page = ada.get("/admin/users?q=example").text
    assert "More than 3 users" in page
    assert "q=example&amp;before=" in page


def add_events(app: Flask) -> None:
    """Add one event a day, the newest today."""
    with app.test_request_context():
        for number in range(4):
            event = events.record("authn_login_fail")
            event.at = utcnow() - timedelta(days=20 * number)
            event.address = f"192.0.2.{number}"
        db.session.commit()


def addresses(ada: Visitor, query: str) -> list[str]:
    body = ada.get(f"/admin/history?{query}", headers=JSON).get_json()
    return [event["address"][-1] for event in body["events"]]


def test_history_is_filtered(app: Flask, ada: Visitor):
    add_events(app)
    for query, found in {
        "name=authn_login_fail": ["0", "1"],
        "name=authn_login_fail&from=": ["0", "1", "2", "3"],
        "name=authn_login_fail&from=2020-01-01": ["0", "1", "2", "3"],
        "name=authn_login_fail&before=99999999999999999999": ["0", "1"],
        "address=192.0.2.1": ["1"],
        "from=&to=2020-01-01": [],
        "from=9999-12-31&to=9999-12-31": [],
        "name=nothing": [],
        "person=nobody@example.org": [],
        "person=99999999999999999999": [],
        "person=²": [],
    }.items():
        assert sorted(addresses(ada, query)) == sorted(found), query


def test_a_day_that_is_none_is_refused(ada: Visitor):
    for day in ("yesterday", "2026-13-01", "0000-01-01"):
        assert ada.get(f"/admin/history?from={day}").status_code == 400


def test_history_of_one_person_is_found_by_address_and_number(
    app: Flask, ada: Visitor, person: str
):
    ada.submit(user_path(app, person, "lock"), WHY)
    for who in (person, id_of(app, person)):
        body = ada.get(f"/admin/history?person={who}", headers=JSON).get_json()
        assert [event["name"] for event in body["events"]] == ["authn_login_lock"]


def test_history_goes_on_where_the_page_ended(
    app: Flask, ada: Visitor, monkeypatch: pytest.MonkeyPatch
):
    add_events(app)
    monkeypatch.setattr(admin.history, "PAGE", 3)
    wanted = "/admin/history?from=&name=authn_login_fail"
    first = ada.get(wanted, headers=JSON).get_json()
    assert len(first["events"]) == 3
    rest = ada.get(f"{wanted}&before={first['before']}", headers=JSON).get_json()
    assert [event["address"] for event in rest["events"]] == ["192.0.2.3"]
    assert rest["before"] is None


def test_what_strangers_typed_is_shown_as_text(app: Flask, ada: Visitor):
    email = add_person(app, "'+alert`1`+'@example.com")
    ada.submit(user_path(app, email, "lock"), {"reason": "<script>alert(1)</script>"})
    for page in ("/admin/users", user_path(app, email), "/admin/history"):
        text = ada.get(page).text
        assert "<script>alert" not in text
        assert "&#39;+alert`1`+&#39;@example.com" in text


def test_the_pages_show_what_happened_and_why(app: Flask, ada: Visitor, person: str):
    ada.submit(user_path(app, person, "lock"), WHY)
    for page in (user_path(app, person), "/admin/history"):
        text = ada.get(page).text
        assert "An account was locked" in text
        assert f"Reason: {WHY['reason']}" in text
        assert "ada@example.org" in text


# --- Reading what is others' ----------------------------------------------------------


def test_reading_about_somebody_is_recorded(app: Flask, ada: Visitor, person: str):
    assert ada.get(user_path(app, person)).status_code == 200
    assert ada.get(user_path(app, person), headers=JSON).status_code == 200
    reads = recorded(app)
    assert [read.name for read in reads] == ["sensitive_read"] * 2
    assert {read.details["action"] for read in reads} == {"person"}
    assert {read.user_id for read in reads} == {id_of(app, person)}
    assert {read.actor_id for read in reads} == {id_of(app, "ada@example.org")}
    assert "viewed or exported data" not in ada.get(user_path(app, person)).text


def test_reading_about_oneself_is_not_recorded(app: Flask, ada: Visitor):
    assert ada.get(user_path(app, "ada@example.org")).status_code == 200
    assert recorded(app) == []


def rows(answer: TestResponse) -> list[dict[str, Any]]:
    return [json.loads(line) for line in answer.text.splitlines()]


def test_an_export_is_a_file_of_what_the_search_finds(app: Flask, ada: Visitor):
    add_events(app)
    page = ada.get("/admin/history?name=authn_login_fail&before=9&endpoint=x").text
    link = re.search(r'href="(/admin/history/export[^"]*)"', page)
    assert link
    wanted = html.unescape(link[1])
    answer = ada.get(wanted)
    assert answer.is_streamed
    assert answer.mimetype == "application/x-ndjson"
    assert answer.headers["Cache-Control"] == "no-store, private"
    assert re.fullmatch(
        r"attachment; filename=audit-\d{4}-\d\d-\d\d\.jsonl",
        answer.headers["Content-Disposition"],
    )
    assert sorted(row["address"] for row in rows(answer)) == ["192.0.2.0", "192.0.2.1"]
    whole = rows(ada.get(wanted.replace("from=", "from=2020-01-01&was=")))
    assert [row["address"][-1] for row in whole] == ["0", "1", "2", "3"]


def test_an_export_has_the_rows_that_the_command_writes(app: Flask, ada: Visitor):
    add_events(app)
    sent = ada.get("/admin/history/export?from=").text
    run = app.test_cli_runner().invoke(args=["audit", "export"])
    assert sent == run.output
    last = json.loads(sent.splitlines()[-1])
    assert last["name"] == "sensitive_read"
    assert last.keys() == {"row", "mac", *trail.COVERED}


def test_an_export_is_recorded_before_it_is_sent(
    app: Flask, ada: Visitor, monkeypatch: pytest.MonkeyPatch
):
    happened: list[int | str] = []

    def rows_of(_: object) -> Iterator[str]:
        happened.append("sent")
        yield "{}"

    def note(session: Session) -> None:
        links = pending_events(session).links
        happened.extend(link.position for link in links.values())

    monkeypatch.setattr(history, "json_rows", rows_of)
    event.listen(db.session, "after_commit", note, insert=True)
    try:
        assert ada.get("/admin/history/export").text == "{}\n"
    finally:
        event.remove(db.session, "after_commit", note)
    (read,) = recorded(app)
    assert (read.name, read.details) == ("sensitive_read", {"action": "export"})
    assert read.actor_id == id_of(app, "ada@example.org")
    with app.app_context():
        link = select(AuditLink.position).where(AuditLink.event_id == read.id)
        assert happened == [db.session.scalar(link), "sent"]


def test_what_cannot_be_recorded_is_not_exported(
    app: Flask, ada: Visitor, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: object) -> None:
        raise OperationalError("INSERT", {}, sqlite3.OperationalError("disk I/O error"))

    add_events(app)
    monkeypatch.setattr(trail, "add_links", fail)
    answer = ada.get("/admin/history/export", headers=JSON)
    assert answer.status_code >= 500
    assert "authn_login_fail" not in answer.text


def test_an_export_asks_again_after_a_quarter_of_an_hour_and_leads_back(
    ada: Visitor, monkeypatch: pytest.MonkeyPatch
):
    later = (utcnow() + timedelta(minutes=16)).replace(tzinfo=None)
    monkeypatch.setattr("flask_security.utils.naive_utcnow", lambda: later)
    answer = ada.get("/admin/history/export?name=authn_login_fail")
    assert unquote(answer.location).startswith("/verify?next=")
    assert unquote(answer.location).endswith("export?name=authn_login_fail")


def test_a_search_that_makes_no_sense_exports_and_records_nothing(
    app: Flask, ada: Visitor
):
    answer = ada.get("/admin/history/export?from=yesterday", headers=JSON)
    assert answer.status_code == 400
    assert answer.get_json()["hint"] == "Enter a date such as 2026-11-21."
    assert recorded(app) == []


class _EagerUser:
    """The user of a team that loads a list of other objects with each user."""


def test_a_list_of_people_loads_no_more_than_it_shows(
    app: Flask, ada: str, person: str, monkeypatch: pytest.MonkeyPatch
):
    def roles(**options: Any) -> Any:
        return relationship(Role, secondary=users_roles, viewonly=True, **options)

    also = {
        "roles": roles(),
        "webauthn": relationship(Passkey, viewonly=True),
        "more": roles(lazy="joined"),
    }
    registry().map_imperatively(_EagerUser, User.__table__, properties=also)
    with app.app_context():
        monkeypatch.setattr(users.datastore(), "user_model", _EagerUser)
        found = db.session.scalars(users.query()).all()
        assert len(found) == 2
        assert all("more" in inspect(user).unloaded for user in found)
