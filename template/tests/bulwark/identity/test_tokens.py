"""Access tokens: a script does what its token and its owner's roles allow, no more."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask, jsonify
from flask_login import current_user
from sqlalchemy import select, update
from sqlalchemy.exc import OperationalError

from app.models import User
from bulwark.audit.events import SecurityEvent
from bulwark.database import db, rows, utcnow
from bulwark.identity import tokens
from bulwark.identity.tokens import AccessToken
from bulwark.web import access
from bulwark.web.access import permission, recent
from tests.conftest import Visitor, add_person
from tests.support import bearer, find_user, make_token, sample_path

PAGE = "/account/tokens"
READ, WRITE = "/account/activity", "/account/sessions/end-others"
NEW_PASSWORD = "seven brass kettles whistle"
Change = Callable[[AccessToken, Any], object]


@pytest.fixture
def ada(app: Flask) -> str:
    """The address of an administrator."""
    return add_person(app, "ada@example.org", "administrator")


@pytest.fixture(autouse=True)
def api(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put views that ask for a permission in the place of two others."""

    @permission("users:read")
    def read():
        return jsonify(
            email=current_user.email,
            may_write=current_user.has_permission("users:write"),
        )

    @permission("users:write")
    def write():
        return jsonify(done=True)

    monkeypatch.setitem(app.view_functions, "account.activity", read)
    monkeypatch.setitem(app.view_functions, "account.end_other_sessions", write)


def names(app: Flask) -> list[str]:
    with app.app_context():
        return list(
            db.session.scalars(select(SecurityEvent.name).order_by(SecurityEvent.id))
        )


# --- The end of a token -----------------------------------------------------------


def test_a_password_reset_revokes_all(visitor: Visitor, app: Flask, ada: str):
    token = make_token(app, ada, "users:read")
    visitor.submit("/reset", {"email": ada})
    visitor.submit(visitor.link_in_last_letter(), {"password": NEW_PASSWORD})
    assert visitor.get(READ, headers=bearer(token)).status_code == 401


def test_a_token_that_ended_is_listed_for_90_days(app: Flask, ada: str):
    for days in (89, 91):
        make_token(app, ada, "users:read")
        with app.app_context():
            newest = db.session.scalars(select(AccessToken)).all()[-1]
            newest.revoked_at = utcnow() - timedelta(days=days)
            db.session.commit()
    make_token(app, ada, "users:read")
    with app.app_context():
        tokens.forget_ended.call_local()
        assert len(tokens.for_user(find_user(app, ada))) == 2


# --- What a token may do --------------------------------------------------------------


def test_a_token_speaks_for_its_owner_and_opens_no_session(
    visitor: Visitor, app: Flask, ada: str
):
    answer = visitor.get(READ, headers=bearer(make_token(app, ada, "users:read")))
    assert answer.get_json() == {"email": ada, "may_write": False}
    assert "__Host-" not in str(answer.headers.getlist("Set-Cookie"))
    assert visitor.get("/account").status_code == 302


def test_a_token_does_only_what_it_was_given(visitor: Visitor, app: Flask, ada: str):
    reads, writes = (
        make_token(app, ada, "users:read"),
        make_token(app, ada, "users:write"),
    )
    assert visitor.get(READ, headers=bearer(writes)).status_code == 403
    assert visitor.client.post(WRITE, headers=bearer(reads)).status_code == 403
    assert visitor.client.post(WRITE, headers=bearer(writes)).status_code == 200
    assert names(app).count("authz_fail") == 2


def test_a_token_does_only_what_its_owner_may_do_at_that_moment(
    visitor: Visitor, app: Flask, ada: str
):
    token = make_token(app, ada, "users:read")
    assert visitor.get(READ, headers=bearer(token)).status_code == 200
    with app.app_context():
        find_user(app, ada).roles = []
        db.session.commit()
    assert visitor.get(READ, headers=bearer(token)).status_code == 403


def test_a_token_opens_no_page_that_is_for_its_person(
    visitor: Visitor, app: Flask, ada: str
):
    token = make_token(app, ada, *app.extensions["permissions"])
    tried = 0
    for rule in app.url_map.iter_rules():
        view = app.view_functions[rule.endpoint]
        personal = access.declared_for(app, rule.endpoint) == access.SIGNED_IN
        if not (personal or hasattr(view, "recent")):
            continue
        for method in (rule.methods or set()) - {"OPTIONS", "HEAD"}:
            path = sample_path(rule.rule)
            answer = visitor.client.open(path, method=method, headers=bearer(token))
            assert answer.status_code == 403, (method, path)
            tried += 1
    assert tried > 30
    assert visitor.get("/account").status_code == 302


def test_a_token_does_not_open_what_asks_for_a_recent_sign_in(
    visitor: Visitor, app: Flask, ada: str, monkeypatch: pytest.MonkeyPatch
):
    view = recent(permission("users:read")(lambda: "hello"))
    monkeypatch.setitem(app.view_functions, "account.activity", view)
    answer = visitor.get(READ, headers=bearer(make_token(app, ada, "users:read")))
    assert answer.status_code == 403


def test_an_owner_without_a_required_factor_is_refused(
    visitor: Visitor, app: Flask, ada: str
):
    token = make_token(app, ada, "users:read")
    with app.app_context():
        find_user(app, ada).tf_totp_secret = None
        db.session.commit()
    answer = visitor.get(READ, headers=bearer(token))
    assert answer.status_code == 403
    assert answer.get_json() == {"error": "Set up a second factor first"}


# --- What is no token -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda token, _: setattr(token, "revoked_at", utcnow()), "revoked"),
        (lambda token, _: setattr(token, "expires_at", utcnow()), "expired"),
        (lambda _, owner: setattr(owner, "active", False), "its owner is locked"),
    ],
    ids=["revoked", "expired", "locked"],
)
def test_a_token_that_ended_is_refused_and_recorded(
    visitor: Visitor, app: Flask, ada: str, change: Change, reason: str
):
    token = make_token(app, ada, "users:read")
    with app.app_context():
        owner = find_user(app, ada)
        row = db.session.scalars(select(AccessToken)).one()
        change(row, owner)
        db.session.commit()
        number, owner_id = row.id, owner.id
    answer = visitor.get(READ, headers=bearer(token))
    assert answer.status_code == 401
    assert answer.get_json() == {"error": "This access token is not valid"}
    assert answer.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'
    with app.app_context():
        last = db.session.scalars(
            select(SecurityEvent).order_by(SecurityEvent.id.desc())
        ).first()
        assert last is not None
        assert (last.name, last.user_id, last.actor_id, last.reason, last.details) == (
            "authn_token_reuse",
            owner_id,
            None,
            reason,
            {"token_id": number},
        )


NO_TOKENS = [
    "Bearer",
    "Bearer ",
    "Bearer bwk_",
    f"Bearer bwk_{'x' * 43}",
    f"Bearer {'x' * 47}",
    f"Bearer bwk_{'x' * 10_000}",
    "Bearer bwk_é",
    "Bearer a=b",
    "Bearer realm=x, b=c",
    "Basic YWRhOmFkYQ==",
    "Basic !",
    "Digest username=ada",
    "",
    " ",
]


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_session_with_an_authorization_that_is_none_gains_nothing(
    visitor: Visitor, ada: str, method: str, subtests: pytest.Subtests
):
    visitor.sign_in(ada)
    path = READ if method == "GET" else WRITE
    for header in NO_TOKENS:
        with subtests.test(header=header[:30]):
            sent = {"Authorization": header}
            answer = visitor.client.open(path, method=method, headers=sent)
            # Without a token that counts, a POST lacks its CSRF token at least.
            refused = {401} if method == "GET" and header.isascii() else {400, 401}
            assert answer.status_code in refused
            assert answer.is_json
            assert visitor.is_signed_in()


def test_somebody_elses_session_adds_nothing_to_a_token(
    visitor: Visitor, app: Flask, ada: str, person: str
):
    token = make_token(app, ada, "users:read")
    with app.app_context():
        find_user(app, ada).roles = []
        db.session.commit()
    visitor.sign_in(add_person(app, "bob@example.org", "administrator"))
    assert visitor.get(READ, headers=bearer(token)).status_code == 403


@pytest.mark.parametrize("where", ["query", "form", "json", "cookie", "other header"])
def test_a_token_counts_in_its_header_only(
    visitor: Visitor, app: Flask, ada: str, where: str
):
    token = make_token(app, ada, "users:read")
    options: dict[str, Any] = {
        "query": {"query_string": {"access_token": token, "auth_token": token}},
        "form": {"data": {"access_token": token}},
        "json": {"json": {"access_token": token, "auth_token": token}},
        "cookie": {"headers": {"Cookie": f"Authorization=Bearer {token}"}},
        "other header": {"headers": {"Authentication-Token": token}},
    }[where]
    assert visitor.get(READ, **options).status_code in (302, 401)


@pytest.mark.parametrize("path", ["/login", "/register", "/reset"])
def test_a_public_form_wants_its_csrf_token_whatever_the_headers(
    visitor: Visitor, app: Flask, ada: str, path: str
):
    token = make_token(app, ada, "users:read")
    data = {"email": ada, "password": NEW_PASSWORD}
    answer = visitor.client.post(path, data=data, headers=bearer(token))
    assert answer.status_code == 400


def test_a_session_wants_a_csrf_token_where_a_token_needs_none(
    visitor: Visitor, app: Flask, ada: str
):
    visitor.sign_in(ada)
    assert visitor.client.post(WRITE).status_code == 400


# --- Use ------------------------------------------------------------------------------


def test_the_last_use_is_stored_once_a_minute(visitor: Visitor, app: Flask, ada: str):
    token = make_token(app, ada, "users:read")

    def last_use():
        visitor.get(READ, headers=bearer(token))
        with app.app_context():
            return db.session.scalars(select(AccessToken.last_used_at)).one()

    first = last_use()
    assert first
    assert last_use() == first
    with app.app_context():
        earlier = first - timedelta(seconds=61)
        db.session.execute(update(AccessToken).values(last_used_at=earlier))
        db.session.commit()
    assert last_use() > first


@pytest.mark.promise("one-query")
def test_a_request_with_a_token_takes_one_query(
    visitor: Visitor, app: Flask, ada: str, person: str, statements: list[str]
):
    token = make_token(app, ada, "users:read")
    visitor.get(READ, headers=bearer(token))
    statements.clear()
    assert visitor.get(READ, headers=bearer(token)).status_code == 200
    with app.app_context():
        # If the ORM loads this service's users, it also loads their roles.
        assert len(statements) == 1 or not rows.is_plain(User), statements


def test_what_a_token_does_is_recorded_with_its_number(
    visitor: Visitor, app: Flask, ada: str
):
    token = make_token(app, ada, "users:read")
    visitor.client.post(WRITE, headers=bearer(token))
    with app.app_context():
        number = db.session.scalars(select(AccessToken.id)).one()
        mark = db.session.scalars(
            select(SecurityEvent.session).where(SecurityEvent.name == "authz_fail")
        ).one()
    assert mark == f"token {number}"


def test_a_script_hears_that_the_database_is_away(
    visitor: Visitor, app: Flask, ada: str, monkeypatch: pytest.MonkeyPatch
):
    token = make_token(app, ada, "users:read")

    def away(*_: Any, **__: Any) -> None:
        raise OperationalError("", {}, Exception())

    monkeypatch.setattr(rows, "fetch", away)
    answer = visitor.get(READ, headers=bearer(token))
    assert answer.status_code == 503
    assert answer.headers["Retry-After"]


def test_a_full_disk_lets_scripts_read_on(
    visitor: Visitor, app: Flask, ada: str, monkeypatch: pytest.MonkeyPatch
):
    token = make_token(app, ada, "users:read")

    def full() -> None:
        raise OperationalError("UPDATE", {}, Exception("disk full"))

    with monkeypatch.context() as patch:
        patch.setattr(db.session, "commit", full)
        answer = visitor.get(READ, headers=bearer(token))
    assert answer.status_code == 200
    assert answer.get_json() == {"email": ada, "may_write": False}


def test_errors_are_json_for_a_script(visitor: Visitor, app: Flask, ada: str):
    answer = visitor.get("/nowhere", headers=bearer(make_token(app, ada, "users:read")))
    assert answer.status_code == 404
    assert answer.get_json()["error"]
