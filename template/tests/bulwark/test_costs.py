"""Costs: nothing that a visitor sends is costly to check, however it is made.

Each validator, parser and regular expression of the base is given the worst input that
is known for it, as long as `bulwark.web.form_limits` lets it be. Its processor time is
compared with that of one hash, measured in the same process: 2 of 100 are 5 ms where a
hash takes 250 ms.
"""

import math
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import bcrypt
import pytest
from flask import Flask
from flask_security.utils import validate_redirect_url
from webauthn.helpers import (
    parse_attestation_object,
    parse_authentication_credential_json,
    parse_registration_credential_json,
)
from wtforms.form import BaseForm as BoundForm

from bulwark.identity import devices, roles, signup, tokens
from bulwark.identity.models import BaseUser
from bulwark.identity.security import second_factors
from bulwark.identity.security.settings import BCRYPT_ROUNDS
from bulwark.network import network_of
from bulwark.observability import request_log
from bulwark.observability.redaction import Shape
from bulwark.web import form_limits, headers
from tests.conftest import Visitor

OF_A_HASH = 0.02
TRIES = 100  # a busy machine takes longer for most of them, not for all
HEADER = 8190  # gunicorn.conf.py
LEET = "1ax[48|+@%<%|!@a(x%z|zx(6z6[$iis@i<za81(z79z5$1(+$({1+s<[56|x%9$ai%<ie+0"

PASSWORDS = {
    "signs for letters": LEET * 20,
    "signs at the end": "a" * 900 + LEET * 2,
    "one letter": "a" * 2000,
    "two letters": "ab" * 1000,
    "one digit": "1" * 2000,
    "dates": "19121112" * 200,
    "words": "passwordthemanofloveinthe" * 50,
    "punctuation": "a." * 1000,
    "compositions": "\N{ARABIC LIGATURE SALLALLAHOU ALAYHE WASALLAM}" * 2000,
    "marks": "a" + "\u0301\u0316" * 1000,
    "marks in disorder": "a\u0327\u0301\u0316" * 500,
}
EMAILS = {
    "long": "a" * 300 + "@example.org",
    "parts": "a" * 64 + "@" + "a." * 200,
    "at signs": "@" * 300,
    "quotes": '"' + "\\a" * 100 + '"@example.org',
    "foreign parts": "a@" + "ü." * 200 + "org",
    "one foreign part": "a@" + "ü" * 300,
    "right to left": "a@" + "\N{ARABIC LETTER ALEF}" * 300,
    "compositions": "a@" + PASSWORDS["compositions"],
    "marks": PASSWORDS["marks"] + "@example.org",
    "encoded": "a@" + "xn--" * 100,
    "comments": "a" + "(" * 300 + "@example.org",
    "an address": "a@[" + "1:" * 150 + "]",
    "spaces": " " * 300,
}
NUMBERS = {
    "digits": "1" * 100,
    "foreign digits": "\N{FULLWIDTH DIGIT ONE}" * 100,
    "spaces": " " * 100,
    "six": "123456",
}
BODIES = {
    "lists in lists": "[" * 100_000,
    "many lists": "[" + "[]," * 50_000,
    "objects in objects": '{"a":' * 20_000,
    "a long number": "1" * 100_000,
    "a long fraction": "0." + "1" * 100_000,
    "a long exponent": "1e" + "9" * 100_000,
    "escapes": '"' + "\\ud800" * 20_000,
    "keys": "{" + ",".join(f'"{n}":1' for n in range(10_000)),
}
CBOR = {
    "lists in lists": b"\x81" * 20_000,
    "endless lists": b"\x9f" * 20_000,
    "a list": b"\x9a\x00\x00\xff\xff" + b"\x00" * 20_000,
    "a list that is not there": b"\x9b" + b"\xff" * 8,
    "tags": b"\xc2" * 20_000,
    "a long number": b"\xc2\x59\x2e\xe0" + b"\xff" * 12_000,
}
PLACES = {
    "slashes": "/" * 3000,
    "backslashes": "\\" * 3000,
    "no host": "https://[" + "a" * 3000,
    "at signs": "http://" + "@" * 3000,
    "escapes": "%41" * 1000,
    "tabs": "\t" * 3000,
    "wide slashes": "//" + "\N{FULLWIDTH SOLIDUS}" * 3000,
}
SIGNED = {
    "dots": "." * HEADER,
    "three parts": "a" * 8000 + ".bbbbbb." + "c" * 43,
    "packed": "." + "eJ" * 4000 + ".bbbbbb." + "c" * 43,
}

# A browser's name, for one, is a text of a line of the log.
LOGGED = {
    "letters": "a" * HEADER + " @",
    "hyphens": "a-" * (HEADER // 2) + " .abcdef. @",
    "dots": "aaaaaaaa.aaaaaa." * (HEADER // 16),
    "addresses": "a@" * (HEADER // 2),
    "urls": "://a:" * (HEADER // 5) + " @",
    "urls without an end": "://" * 2000 + ":" + "a" * 2000 + " @",
}


def seconds(work: Callable[[], Any], times: int, enough: float = 0) -> float:
    """Return the least processor time; what is refused took its time as well.

    With `enough`, stop once it took no longer than that. What measures the coverage of
    the tests looks away meanwhile.
    """
    took, tracer = [math.inf], sys.gettrace()
    sys.settrace(None)
    try:
        while min(took) > enough and len(took) <= times:
            started = time.thread_time()
            with suppress(Exception):
                work()
            took.append(time.thread_time() - started)
    finally:
        sys.settrace(tracer)
    return min(took)


def validators(app: Flask) -> dict[str, tuple[Callable[[Any], Any], dict[str, Any]]]:
    """Return what checks what is sent, with inputs as long as they may be."""
    security: Any = app.extensions["security"]
    totp, email = security.totp_factory, "a.b.c" * 20 + "@" + "word." * 28 + "org"
    seed, nobody = totp.generate_totp_secret(), BaseUser.__new__(BaseUser)
    anything = {"letters": "a" * HEADER, "dots": "a." * (HEADER // 2)}

    def cut(inputs: dict[str, Any], field: str) -> dict[str, Any]:
        return {
            name: text[: form_limits.LENGTHS[field]] for name, text in inputs.items()
        }

    return {
        "password": (
            lambda text: security.password_util.validate(text, True, email=email),
            cut(PASSWORDS, "password"),
        ),
        "email": (security._mail_util.validate, cut(EMAILS, "email")),
        "code": (
            lambda text: totp.verify_totp(text, seed, nobody, totp_window()),
            cut(NUMBERS, "code"),
        ),
        "next": (validate_redirect_url, cut(PLACES, "next")),
        "json": (
            app.json.loads,
            {name: text[: form_limits.BODY] for name, text in BODIES.items()},
        ),
        "credential": (parse_authentication_credential_json, cut(BODIES, "credential")),
        "new credential": (
            parse_registration_credential_json,
            cut(BODIES, "credential"),
        ),
        "attestation": (parse_attestation_object, cut(CBOR, "credential")),
        "signed": (
            lambda text: signup._serializer().loads(text, max_age=1),
            SIGNED,
        ),
        "role": (roles.ROLE_NAME.fullmatch, cut_others(anything)),
        "access token": (tokens.TOKEN.fullmatch, anything),
        "device": (devices.TOKEN.fullmatch, anything),
        "user agent": (devices.name_of, {"names": "Mozilla " * 1000}),
        "line of the log": (Shape()._clean, LOGGED),
        "request id": (request_log.REQUEST_ID.fullmatch, anything),
        "address": (network_of, {"colons": "1:" * (HEADER // 2)}),
        "source": (headers.HOST.fullmatch, {"dots": "https://" + "a." * 4000}),
    }


def cut_others(inputs: dict[str, str]) -> dict[str, str]:
    return {name: text[: form_limits.OTHERS] for name, text in inputs.items()}


def totp_window() -> int:
    return second_factors.TOTP_STEP


def test_no_input_is_costly_to_check(app: Flask):
    with app.test_request_context("/login"):
        hashed = seconds(
            lambda: bcrypt.hashpw(b"x", bcrypt.gensalt(BCRYPT_ROUNDS)), times=2
        )
        shares = {}
        for name, (check, inputs) in validators(app).items():
            seconds(partial(check, "a"), times=1)  # what it loads once
            for kind, sent in inputs.items():
                took = seconds(partial(check, sent), TRIES, hashed * OF_A_HASH)
                shares[f"{name}: {kind}"] = took / hashed
    worst = sorted(shares.items(), key=lambda pair: -pair[1])
    for name, share in worst[:9]:
        sys.stdout.write(f"{share:.2%} of a hash: {name}\n")
    assert {name: share for name, share in worst if share > OF_A_HASH} == {}


FORM, PARTS = "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"
SENT = {
    "many fields": (b"a=b&" * form_limits.BODY, FORM),
    "many encoded fields": (b"%41&" * form_limits.BODY, FORM),
    "no UTF-8": (b"a=" + b"%ff" * form_limits.BODY, FORM),
    "many parts": (
        b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nb\r\n' * 1000,
        PARTS,
    ),
    "hyphens": (b"\r\n--" * form_limits.BODY, PARTS),
    "many lists": (b"[" + b"[]," * form_limits.BODY, "application/json"),
    "many texts": (b"[" + b'"",' * form_limits.BODY, "application/json"),
}


@pytest.mark.parametrize("kind", SENT)
def test_no_body_is_costly_to_read(app: Flask, kind: str):
    body, content_type = SENT[kind]
    hashed = seconds(lambda: bcrypt.hashpw(b"x", bcrypt.gensalt(BCRYPT_ROUNDS)), 2)
    took = [math.inf]
    while min(took) > hashed * OF_A_HASH and len(took) <= TRIES:
        with app.test_request_context(
            "/login",
            method="POST",
            data=body[: form_limits.BODY],
            content_type=content_type,
        ):
            took.append(seconds(form_limits._check, 1))
    assert min(took) <= hashed * OF_A_HASH


# --- Lengths -------------------------------------------------------------------------

FIELDS = [
    ("/login", "email"),
    ("/login", "password"),
    ("/login", "next"),
    ("/register", "email"),
    ("/reset", "email"),
    ("/verify", "password"),
    ("/change", "password"),
    ("/change", "new_password"),
    ("/change-email", "email"),
    ("/login/recovery", "code"),
    ("/account/passkeys", "name"),
    ("/account/tokens", "name"),
]


@pytest.mark.parametrize("as_json", [False, True], ids=["form", "json"])
@pytest.mark.parametrize(("path", "field"), FIELDS)
def test_a_field_that_is_too_long_is_refused_before_anything_reads_it(
    path: str,
    field: str,
    as_json: bool,
    visitor: Visitor,
    app: Flask,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(BoundForm, "process", lambda *_, **__: pytest.fail("read"))
    most = form_limits.LENGTHS.get(field, form_limits.OTHERS)
    sent = {field: "a" * (most + 1)}
    options: Any = {"json": sent} if as_json else {"data": sent}
    answer = visitor.client.post(path, **options)
    assert answer.status_code == 400
    assert f"Use {most} characters at most" in answer.text


def test_a_field_as_long_as_it_may_be_is_read(visitor: Visitor, person: str):
    longest = {"email": person, "password": "a" * form_limits.PASSWORD}
    assert visitor.submit("/login", longest).status_code == 200


@pytest.mark.parametrize(
    "kind", ["application/x-www-form-urlencoded", "application/json"]
)
def test_a_large_body_is_refused_unread(visitor: Visitor, kind: str):
    answer = visitor.client.post(
        "/login", data=b"a" * (form_limits.BODY + 1), content_type=kind
    )
    assert answer.status_code == 413


def test_many_fields_are_refused(visitor: Visitor):
    many = {f"f{number}": "x" for number in range(form_limits.FIELDS + 1)}
    assert visitor.client.post("/login", data=many).status_code == 400
    nested = {"permissions": ["x"] * (form_limits.FIELDS + 1)}
    assert visitor.client.post("/login", json=nested).status_code == 400


def test_a_text_deep_in_json_has_the_length_of_its_field(visitor: Visitor):
    deep = {"email": [{"email": ["a" * (2 * form_limits.EMAIL + 1)]}]}
    assert visitor.client.post("/login", json=deep).status_code == 400
