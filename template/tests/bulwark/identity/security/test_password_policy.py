"""Passwords: which are refused, and that the reason is shown."""

import random
import string
from collections.abc import Sequence

import pytest
from flask import Flask
from zxcvbn.frequency_lists import FREQUENCY_LISTS

from bulwark.identity.security import common_passwords
from bulwark.identity.security.password_policy import refusal
from tests.conftest import GOOD_PASSWORD, Visitor

# As long as those of the lists that passphrases are drawn from.
WORDS = [w for w in FREQUENCY_LISTS["english_wikipedia"][:12_000] if len(w) > 3]


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
        ("passwordpassword", "Many people use"),
        ("aaaaaaaaaaaaaaaaaaaa", "Many people use"),
        ("qwertyuiopqwertyuiop", "Many people use"),
        ("correcthorsebatterystaple", "Many people use"),
        ("Correct Horse Battery Staple!", "Many people use"),
        ("qwertyuiopasdfghjklzxcvbnm", "Many people use"),
        ("thisisapassword", "Many people use"),
        ("liverpoolfootballclub", "Many people use"),
        ("Winter2023Winter!", "It consists of common words, names or passwords"),
        ("P@ssw0rd2024P@ssw0rd2024", "easy to guess"),
        ("!QAZ@WSX#EDC$RFV", "easy to guess"),
        ("7890uiopjkl;m,./", "easy to guess"),
        ("zyxwvutsrqponmlkjihgfedcba0", "It contains repetitions"),
        ("xq0xq0xq0xq0xq0xq0xq0", "It contains repetitions"),
        ("drowssapdrowssap1", "Many people use"),
        ("nicole24081999nicole", "easy to guess"),
        ("this is my password", "Many people use"),
        ("This is the password 1", "easy to guess"),
        ("drowssap2024drowssap", "easy to guess"),
        ("bulwark otter lamps", "Leave out “bulwark”"),
        ("CAFÉ otter juggles lamps", "Leave out “café”"),
        ("miller otter juggles", "Leave out “miller”"),
    ],
)
def test_a_guessable_password_is_refused_with_its_reason(password: str, reason: str):
    assert reason in said_of(password)


def test_a_hundred_thousand_common_passwords_of_an_allowed_length_are_known():
    """OWASP ASVS 5.0, 6.2.4, for the passwords that the length lets through."""
    size, data = common_passwords.SIZE, common_passwords.FILE.read_bytes()
    hashes = [data[at : at + size] for at in range(0, len(data), size)]
    assert len(hashes) > 100_000
    assert hashes == sorted(set(hashes))


@pytest.mark.parametrize(
    ("alphabet", "length", "separator"),
    [
        (WORDS, 4, " "),
        (WORDS, 4, ""),
        (string.ascii_lowercase, 15, ""),
        (string.ascii_letters + string.digits, 15, ""),
        (string.ascii_letters + string.digits + string.punctuation, 15, ""),
        (string.digits, 20, ""),
    ],
    ids=["four words", "run together", "lower case", "alphanumeric", "any", "digits"],
)
def test_what_is_chosen_at_random_is_taken(
    alphabet: Sequence[str], length: int, separator: str
):
    """The words are common ones, which is harder than a list made for this."""
    draw = random.Random(14)
    chosen = [separator.join(draw.choices(alphabet, k=length)) for _ in range(300)]
    assert {
        password: said_of(password) for password in chosen if said_of(password)
    } == {}


def test_a_long_password_is_as_good_as_its_better_end():
    assert "easy to guess" in said_of("a" * 200)
    assert said_of("a" * 200 + " and purple otter juggles lamps") == ""


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


@pytest.mark.usefixtures("public_sign_up")
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
