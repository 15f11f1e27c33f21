"""Events: each action is recorded once, in the table and the log, without secrets."""

from datetime import timedelta

import pytest
from flask import Flask
from passlib.totp import TOTP
from sqlalchemy import update

from bulwark.database import db, utcnow
from bulwark.identity import tokens
from bulwark.identity.sessions import UserSession
from tests.bulwark.audit.support import WRONG, Watch, give_password, post
from tests.conftest import GOOD_PASSWORD, Visitor, add_person, totp_code
from tests.passkey import SoftwarePasskey
from tests.sign_up import choices_of
from tests.support import (
    ask,
    begin_app,
    register,
    use,
)

NEW_PASSWORD = "seven brass kettles whistle"


# --- Accounts -------------------------------------------------------------------------


@pytest.mark.usefixtures("public_sign_up")
def test_signing_up(visitor: Visitor, watch: Watch):
    visitor.submit("/register", {"email": "new@example.org"})
    assert watch.new() == []
    visitor.create_account(visitor.link_in_last_letter())
    choices = choices_of(visitor.app)
    role = {"role": choices.role} if choices.role else {}
    expected = [("user_created", "new", "new", role)]
    if choices.terms:
        accepted = {"terms": choices.terms.version}
        expected.append(("user_terms_accepted", "new", "new", accepted))
    assert watch.new() == expected


def test_changing_the_password(visitor: Visitor, watch: Watch, zoe: str):
    form = {"password": WRONG, "new_password": NEW_PASSWORD}
    visitor.submit("/change", form)
    assert watch.new() == [("authn_password_change_fail", "zoe", "zoe", {})]
    visitor.submit("/change", form | {"password": GOOD_PASSWORD})
    assert watch.new() == [("authn_password_change", "zoe", "zoe", {})]


def test_resetting_the_password(visitor: Visitor, watch: Watch, person: str):
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
    refused = [("authz_fail", "ada", "ada", {"permission": "signed in"})]
    assert watch.new()[-1:] == refused

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


# --- Secrets --------------------------------------------------------------------------


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
