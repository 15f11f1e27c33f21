"""Subjects and names arrive as they are, read by a decoder of RFC 2047 of our own."""

import base64
import random
import re
from dataclasses import replace

import pytest
from flask import Flask

from bulwark import mail
from bulwark.database import db
from bulwark.mail import headers, outbox
from tests.bulwark.mail.conftest import Inbox, smtp_server
from tests.conftest import Visitor

SCRIPTS = (
    "abc XYZ 0.9",
    "äöüßéçñ ",
    "Личный кабинет",
    "アカウント確認",
    "حساب جديد ",
    "👩‍👩‍👧 🇩🇪",
    '=?_"<>()@,;:\\ ',
)
AWKWARD = (
    "Hello",
    "New sign-in to Личный кабинет клиента",
    "Für Müller & Söhne: Überweisungsbestätigung über 1.000 € für Käufer",
    "=?utf-8?q?hi?=",
    "=?utf-8?q?hi?= ü =?utf-8?q?hi?=",
    " two  spaces ",
    "a tab\tand ünicode",
    "x" * 300,
    "ü" * 300,
    "日本語" * 60,
    "\u00a0",
    '100 % of "all" <b@c>, d; e: f\\',
)
WORD = re.compile(r"=\?utf-8\?b\?([A-Za-z0-9+/=]*)\?=")


def decoded(header: bytes, name: str) -> str:
    """Return the text of a header as in RFC 2047 and RFC 5322, or fail."""
    assert header.startswith(f"{name}: ".encode())
    assert header.endswith(b"\r\n")
    lines = header[:-2].decode("ascii").split("\r\n")
    for number, line in enumerate(lines):
        assert number == 0 or line[0] == " "
        assert "=?" not in line or len(line) <= 76
        assert len(line) <= 998
    words = "".join(lines).removeprefix(f"{name}: ").split(" ")
    if not any(WORD.fullmatch(word) for word in words):
        assert "=?" not in "".join(words)
        return " ".join(words)
    text = ""
    for word in words:
        found = WORD.fullmatch(word)
        assert found, f"{word!r} is no encoded word"
        assert len(word) <= 75
        text += base64.b64decode(found[1], validate=True).decode()  # whole characters
    return text


def random_texts() -> list[str]:
    chance = random.Random(2047)
    letters = [list(script) for script in SCRIPTS]
    return [
        "".join(
            chance.choice(chance.choice(letters)) for _ in range(chance.randint(1, 120))
        )
        for _ in range(2000)
    ]


def test_every_subject_is_exact() -> None:
    for text in (*AWKWARD, *random_texts()):
        assert decoded(headers.subject(text), "Subject") == text


def test_every_senders_name_is_exact() -> None:
    for text in (*AWKWARD, *random_texts()):
        header = headers.mailbox("From", "no-reply@example.org", text)
        name, _, address = header.decode("ascii").rpartition("\r\n ")
        assert address == "<no-reply@example.org>\r\n"
        read = decoded(f"{name}\r\n".encode(), "From")
        if read.startswith('"') and read != text:
            read = re.sub(r"\\(.)", r"\1", read[1:-1])
        assert read == text


@pytest.mark.parametrize("text", ["a\r\nBcc: b@example.org", "ü\nx", "a\r", "\n"])
def test_a_subject_or_a_name_can_not_add_a_header(text: str) -> None:
    with pytest.raises(ValueError, match="one line"):
        headers.subject(text)
    with pytest.raises(ValueError, match="one line"):
        headers.mailbox("From", "no-reply@example.org", text)


def test_an_email_is_sent_with_these_headers(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox = Inbox()
    _, address = app.extensions["bulwark"].sender
    with app.app_context(), smtp_server(inbox) as port:
        url = f"smtp://localhost:{port}"
        for text in AWKWARD:
            settings = replace(app.extensions["bulwark"], mail_url=url, name=text)
            monkeypatch.setitem(app.extensions, "bulwark", settings)
            mail.send(text, "zoe@example.org", "ä\n\n.\n")
            db.session.commit()
        outbox.deliver_due()
    assert len(inbox.letters) == len(AWKWARD)
    for text, letter in zip(AWKWARD, inbox.letters, strict=True):
        subject, sender, receiver, *_ = re.split(rb"\r\n(?! )", letter.content)
        assert decoded(subject + b"\r\n", "Subject") == text
        assert sender + b"\r\n" == headers.mailbox("From", address, text)
        assert receiver == b"To: zoe@example.org"
        assert letter.mail_from == address


def test_the_mailbox_of_development_reads_them(app: Flask, visitor: Visitor) -> None:
    with app.app_context():
        mail.send("New sign-in to Личный кабинет клиента", "zoe@example.org", "x")
        db.session.commit()
    (letter,) = visitor.letters()
    assert letter["Subject"] == "New sign-in to Личный кабинет клиента"
    assert letter["To"] == "zoe@example.org"
