"""Passkeys: what no browser answers is refused, and breaks no page."""

import hashlib
import json
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import replace
from typing import Any

import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from flask import Flask
from sqlalchemy import select, text
from werkzeug.test import TestResponse

from bulwark.database import db
from bulwark.identity.models import Passkey
from bulwark.web.rate_limits import limiter
from tests.beginnings import signed_in
from tests.conftest import Visitor
from tests.passkey import SoftwarePasskey

REGISTRATION, SIGN_IN, VERIFICATION = (
    "/account/passkeys",
    "/login/passkey",
    "/verify/passkey",
)
SIGNED = ("clientDataJSON", "authenticatorData", "signature")
PAGES = (REGISTRATION, SIGN_IN, VERIFICATION)


def begin(visitor: Visitor, page: str) -> tuple[Any, str]:
    """Ask a page for its options and its signed state."""
    begun = visitor.send(page, {"name": f"Phone {secrets.token_hex(4)}"}).get_json()[
        "response"
    ]
    return begun["credential_options"], begun["wan_state"]


def register(visitor: Visitor, key: SoftwarePasskey, **changes: Any) -> TestResponse:
    options, state = begin(visitor, REGISTRATION)
    answer = json.loads(key.register(options)) | changes
    return finish(visitor, REGISTRATION, state, json.dumps(answer))


def finish(visitor: Visitor, page: str, state: str, answer: str) -> TestResponse:
    return visitor.send(f"{page}/{state}", {"credential": answer})


def passkeys(app: Flask) -> int:
    with app.app_context():
        return len(db.session.scalars(select(Passkey)).all())


@pytest.fixture
def owner(visitor: Visitor) -> Visitor:
    """Somebody who is signed in, without a passkey."""
    return signed_in(visitor, "zoe@example.org")


@pytest.mark.parametrize("asked", PAGES)
@pytest.mark.parametrize("answered", PAGES)
def test_a_state_counts_only_where_it_was_made(
    owner: Visitor, other_visitor: Visitor, asked: str, answered: str
):
    key = SoftwarePasskey()
    assert register(owner, key).status_code == 200
    askers = {SIGN_IN: other_visitor}
    options, state = begin(askers.get(asked, owner), asked)
    sign = SoftwarePasskey().register if asked == REGISTRATION else key.sign
    sender = askers.get(answered, owner)
    done = finish(sender, answered, state, sign(options))
    assert done.status_code == (200 if asked == answered else 400)
    assert ("Start over here" in done.text) == (asked != answered)


NOT_AN_ANSWER = {
    "brackets": "[" * 3000,
    "braces": '{"a":' * 3000,
    "a list": "[]",
    "a number": "5",
    "null": "null",
    "nothing": "",
    "no JSON": "{",
    "no number": '{"id": NaN}',
    "half a character": '{"id": "\\ud800"}',
    "numbers": '{"id": 1, "rawId": 2, "type": 3, "response": 4}',
    "no response": '{"id": "a", "rawId": "a", "type": "public-key", "response": {}}',
}


@pytest.mark.parametrize("page", PAGES)
def test_what_is_no_answer_is_400(
    owner: Visitor, other_visitor: Visitor, page: str, subtests: pytest.Subtests
):
    sender = other_visitor if page == SIGN_IN else owner
    for kind, answer in NOT_AN_ANSWER.items():
        with subtests.test(kind):
            limiter.storage.reset()
            _, state = begin(sender, page)
            assert finish(sender, page, state, answer).status_code == 400


def changed(answer: str, **response: Any) -> str:
    whole = json.loads(answer)
    return json.dumps(whole | {"response": whole["response"] | response})


PARTS = [
    (REGISTRATION, "clientDataJSON"),
    (REGISTRATION, "attestationObject"),
    *((page, part) for page in (SIGN_IN, VERIFICATION) for part in SIGNED),
]


NO_PARTS = ["", "AA", "é", "_" * 400, "gICAgA", 5, [], None]


@pytest.mark.parametrize(("page", "part"), PARTS)
def test_a_part_that_no_key_sends_is_400(
    owner: Visitor,
    other_visitor: Visitor,
    page: str,
    part: str,
    subtests: pytest.Subtests,
):
    key = SoftwarePasskey()
    assert register(owner, key).status_code == 200
    sender = other_visitor if page == SIGN_IN else owner
    for value in NO_PARTS:
        with subtests.test(value=value):
            limiter.storage.reset()
            options, state = begin(sender, page)
            sign = SoftwarePasskey().register if page == REGISTRATION else key.sign
            answer = changed(sign(options), **{part: value})
            assert finish(sender, page, state, answer).status_code == 400


@pytest.mark.parametrize(("signs", "status"), [(True, 200), (False, 400)])
def test_a_key_that_attests_itself_is_verified(
    owner: Visitor, signs: bool, status: int
):
    options, state = begin(owner, REGISTRATION)
    signer = SoftwarePasskey()
    key = signer if signs else SoftwarePasskey()
    answer = self_attested(signer.register(options), key)
    assert finish(owner, REGISTRATION, state, answer).status_code == status


def self_attested(answer: str, key: SoftwarePasskey) -> str:
    """Return an answer in the format "packed" (WebAuthn Level 3, 8.2)."""
    response = json.loads(answer)["response"]
    client, attested = (
        urlsafe_b64decode(response[part] + "==")
        for part in ("clientDataJSON", "attestationObject")
    )
    data = cbor2.loads(attested)["authData"]
    signed = data + hashlib.sha256(client).digest()
    statement = {"alg": -7, "sig": key.key.sign(signed, ec.ECDSA(SHA256()))}
    packed = cbor2.dumps({"fmt": "packed", "attStmt": statement, "authData": data})
    return changed(answer, attestationObject=urlsafe_b64encode(packed).decode())


@pytest.mark.parametrize("extensions", [5, "5", "[]", '{"credProps": 5}', {}, [], "{"])
def test_extensions_that_are_no_object_are_not_stored(
    owner: Visitor, app: Flask, extensions: Any
):
    done = register(owner, SoftwarePasskey(), extensions=extensions)
    assert done.status_code == 400
    assert passkeys(app) == 0
    assert owner.get(REGISTRATION).status_code == 200


@pytest.mark.parametrize(
    "extensions", [None, "{}", '{"credProps": {"rk": true}}', '{"prf": {}}']
)
def test_extensions_of_browsers_are_stored(owner: Visitor, app: Flask, extensions: Any):
    assert register(owner, SoftwarePasskey(), extensions=extensions).status_code == 200
    with app.app_context():
        assert db.session.scalars(select(Passkey)).one().extensions == extensions
    assert owner.get(REGISTRATION).status_code == 200


@pytest.mark.parametrize("stored", ["5", "[]", "{", '{"credProps": 5}', "[" * 3000])
def test_a_passkey_that_was_stored_with_wrong_extensions_is_shown(
    owner: Visitor, app: Flask, stored: str
):
    assert register(owner, SoftwarePasskey()).status_code == 200
    with app.app_context():
        update = text("UPDATE passkeys SET extensions = :stored")
        db.session.execute(update, {"stored": stored})
        db.session.commit()
    page = owner.get(REGISTRATION)
    assert page.status_code == 200
    assert "Phone" in page.text


def test_a_passkey_is_stored_under_the_id_that_it_sent(owner: Visitor, app: Flask):
    done = register(owner, SoftwarePasskey(), id="AAAA", rawId="AAAA")
    assert done.status_code == 400
    assert passkeys(app) == 0


def test_an_id_is_as_long_as_the_standard_has_it(owner: Visitor, app: Flask):
    assert register(owner, SoftwarePasskey(id=b"x" * 1024)).status_code == 400
    assert passkeys(app) == 0
    assert register(owner, SoftwarePasskey(id=b"x" * 1023)).status_code == 200


def test_a_counter_that_no_column_holds_is_refused(
    owner: Visitor, other_visitor: Visitor, app: Flask
):
    assert register(owner, SoftwarePasskey(counter=2**31 - 1)).status_code == 400
    assert passkeys(app) == 0
    key = SoftwarePasskey()
    assert register(owner, key).status_code == 200
    key.counter = 2**31 - 1
    options, state = begin(other_visitor, SIGN_IN)
    assert finish(other_visitor, SIGN_IN, state, key.sign(options)).status_code == 400
    assert not other_visitor.is_signed_in()


@pytest.mark.parametrize(
    "public", [{}, {1: 2}, {1: 2, 3: -7, -1: "x", -2: 5, -3: []}, 5]
)
def test_a_key_that_is_none_signs_nobody_in(
    owner: Visitor, other_visitor: Visitor, app: Flask, public: Any
):
    key = SoftwarePasskey()
    assert register(owner, key).status_code == 200
    with app.app_context():
        db.session.scalars(select(Passkey)).one().public_key = cbor2.dumps(public)
        db.session.commit()
    options, state = begin(other_visitor, SIGN_IN)
    assert finish(other_visitor, SIGN_IN, state, key.sign(options)).status_code == 400
    assert not other_visitor.is_signed_in()


def test_a_passkey_is_made_at_the_port_that_visitors_use(
    owner: Visitor, app: Flask, monkeypatch: pytest.MonkeyPatch
):
    """A proxy may leave the port out of Host; APP_BASE_URL has it."""
    settings = replace(app.extensions["bulwark"], base_url="https://localhost:8443")
    monkeypatch.setitem(app.extensions, "bulwark", settings)
    register(owner, SoftwarePasskey(origin="https://localhost:8444"))
    assert passkeys(app) == 0
    register(owner, SoftwarePasskey(origin="https://localhost:8443"))
    assert passkeys(app) == 1
