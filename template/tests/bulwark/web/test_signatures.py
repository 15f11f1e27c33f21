"""Signatures: made with SHA-256; those of before, with SHA-1, live out their time."""

import hashlib
import time
from typing import Any

import pytest
from flask import Flask
from flask.json.tag import TaggedJSONSerializer
from itsdangerous import BadSignature, URLSafeTimedSerializer

from tests.conftest import Visitor

NEW_PASSWORD = "seven brass kettles hum"
# What signs each, besides the secret key: a salt, and how the key is derived.
COOKIE = {"salt": "cookie-session", "serializer": TaggedJSONSerializer()}
BY_HMAC = {"key_derivation": "hmac"}
RESET = {"salt": "reset-salt"}
SIGN_UP = {"salt": "bulwark.sign-up"}
FORM = {"salt": "wtf-csrf-token"}
PASSKEY = {"salt": "bulwark.security.wan_signin"}


def signer(app: Flask, digest: Any, what: Any, **options: Any) -> Any:
    """Return what signs one kind of value with a digest, and knows no other."""
    return URLSafeTimedSerializer(
        app.secret_key,  # type: ignore[arg-type]
        signer_kwargs={"digest_method": digest, **options},
        fallback_signers=[],
        **what,
    )


def signed_values(visitor: Visitor, person: str) -> dict[str, tuple[str, Any, Any]]:
    """Return a value of each kind that the service has just signed."""
    form = visitor.csrf_token("/login")
    cookie = visitor.client.get_cookie("__Host-session")
    assert cookie
    visitor.submit("/reset", {"email": person})
    reset = visitor.link_in_last_letter().removeprefix("/reset/")
    visitor.submit("/register", {"email": "new@example.org"})
    sign_up = visitor.link_in_last_letter().removeprefix("/register/")
    passkey = visitor.send("/login/passkey", {}).get_json()["response"]
    return {
        "cookie": (cookie.value, COOKIE, BY_HMAC),
        "form": (form, FORM, {}),
        "reset": (reset, RESET, {}),
        "sign-up": (sign_up, SIGN_UP, {}),
        "passkey": (passkey["wan_state"], PASSKEY, {}),
    }


@pytest.mark.usefixtures("public_sign_up")
def test_each_value_is_signed_with_sha_256(app: Flask, visitor: Visitor, person: str):
    for kind, (value, what, options) in signed_values(visitor, person).items():
        assert signer(app, hashlib.sha256, what, **options).loads(value), kind
        with pytest.raises(BadSignature):
            signer(app, hashlib.sha1, what, **options).loads(value)


def as_before(app: Flask, value: str, what: Any, **options: Any) -> str:
    """Return a value as the release before signed it."""
    held = signer(app, hashlib.sha256, what, **options).loads(value)
    return str(signer(app, hashlib.sha1, what, **options).dumps(held))


@pytest.mark.usefixtures("public_sign_up")
def test_a_link_of_before_works(app: Flask, visitor: Visitor, person: str):
    value, what, options = signed_values(visitor, person)["reset"]
    old = as_before(app, value, what, **options)
    visitor.submit(f"/reset/{old}", {"password": NEW_PASSWORD})
    visitor.sign_in(person, NEW_PASSWORD)
    assert visitor.is_signed_in()


@pytest.mark.usefixtures("public_sign_up")
def test_a_link_of_before_is_no_younger_than_it_is(
    app: Flask, visitor: Visitor, person: str, monkeypatch: pytest.MonkeyPatch
):
    value, what, options = signed_values(visitor, person)["reset"]
    now = time.time()
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: now - 3700)
        old = as_before(app, value, what, **options)
    answer = visitor.get(f"/reset/{old}")
    assert answer.headers["Location"] == "/reset"


@pytest.mark.usefixtures("public_sign_up")
def test_a_cookie_and_a_form_of_before_go_on(app: Flask, visitor: Visitor, person: str):
    values = signed_values(visitor, person)
    cookie, form = (
        as_before(app, value, what, **options)
        for value, what, options in (values["cookie"], values["form"])
    )
    visitor.client.set_cookie("__Host-session", cookie, secure=True)
    answer = visitor.client.post(
        "/register",
        data={"csrf_token": form, "email": "other@example.org"},
        headers={"Referer": "https://localhost/register"},
    )
    assert answer.status_code == 200
    assert len(visitor.letters()) == 3


@pytest.mark.usefixtures("public_sign_up")
def test_another_key_signs_nothing(app: Flask, visitor: Visitor, person: str):
    value, what, _ = signed_values(visitor, person)["reset"]
    held = signer(app, hashlib.sha256, what).loads(value)
    for digest in (hashlib.sha1, hashlib.sha256):
        stranger = URLSafeTimedSerializer(
            "another", signer_kwargs={"digest_method": digest}, **what
        )
        assert visitor.get(f"/reset/{stranger.dumps(held)}").status_code == 302
