"""Passwords: which are refused, and that the reason is shown."""

import random
import string

import pytest
from flask import Flask
from zxcvbn.frequency_lists import FREQUENCY_LISTS

from bulwark.identity.passwords import refusal
from tests.conftest import GOOD_PASSWORD, Visitor


def said_of(password: str, least: int = 15) -> str:
    reason = refusal(
        password, least=least, service="Café Bulwark", email="zoe.miller@example.org"
    )
    return reason or ""


@pytest.mark.parametrize(
    "password",
    [
        GOOD_PASSWORD,
        "Żółta łódź płynie powoli",
        "correct rhinoceros battery 9",
        "🦔🦔 hedgehogs cross at night",
        "x7Kq!" * 20 + "and more than sixty-four characters",
    ],
)
def test_a_long_phrase_is_taken_as_it_is(password: str):
    assert said_of(password) == ""


@pytest.mark.parametrize(
    ("password", "reason"),
    [
        ("purple otter", "Use 15 characters or more; this has 12"),
        ("a" * 2000, "1024 characters at most"),
        ("passwordpassword", "easy to guess"),
        ("aaaaaaaaaaaaaaaaaaaa", "easy to guess"),
        ("qwertyuiopqwertyuiop", "easy to guess"),
        ("bulwark otter lamps", "Leave out “bulwark”"),
        ("CAFÉ otter juggles lamps", "Leave out “café”"),
        ("miller otter juggles", "Leave out “miller”"),
    ],
)
def test_a_guessable_password_is_refused_with_its_reason(password: str, reason: str):
    assert reason in said_of(password)


def test_the_three_thousand_most_common_passwords_are_refused_at_any_length():
    common = FREQUENCY_LISTS["passwords"][:3000]
    assert [p for p in common if "Many people" not in said_of(p, least=1)] == []
    assert [p for p in common if not said_of(f"{p}123!", least=1)] == []


@pytest.mark.parametrize("alphabet", [string.ascii_lowercase, string.digits, " é漢"])
def test_no_kind_of_character_is_asked_for(alphabet: str):
    chosen = random.Random(7).choices(alphabet, k=40)
    assert said_of("".join(chosen)) == ""


def test_a_setting_lowers_the_length_to_eight(app: Flask):
    assert said_of("w7#kQz!p", least=8) == ""
    assert "8 characters or more" in said_of("w7#kQz!", least=8)


def test_the_reason_is_shown_when_an_account_is_made(visitor: Visitor):
    visitor.submit("/register", {"email": "zoe@example.org"})
    answer = visitor.submit(visitor.link_in_last_letter(), {"password": "short"})
    assert "Use 15 characters or more; this has 5." in answer.text
    assert 'value="zoe@example.org"' in answer.text


def test_the_reason_is_shown_when_a_password_is_changed(visitor: Visitor, person: str):
    visitor.sign_in(person)
    answer = visitor.submit(
        "/change", {"password": GOOD_PASSWORD, "new_password": "example and the otter"}
    )
    assert "Leave out “example”" in answer.get_data(as_text=True)
