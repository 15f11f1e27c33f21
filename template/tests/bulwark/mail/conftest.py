"""What the tests of emails share: mail servers, and emails."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from flask import Flask
from sqlalchemy import func, select, update

from bulwark import mail
from bulwark.database import db, utcnow
from bulwark.mail import outbox


class Inbox:
    """What a real mail server took."""

    def __init__(self, answer: str = "250 OK") -> None:
        self.answer = answer
        self.letters: list[Any] = []

    async def handle_DATA(self, server, session, envelope) -> str:  # noqa: N802
        if self.answer.startswith("250"):
            self.letters.append(envelope)
        return self.answer


@contextmanager
def smtp_server(inbox: Inbox, port: int = 0, **options: Any) -> Iterator[int]:
    """Run a mail server on this machine; yield its port."""
    controller = Controller(
        inbox, hostname="localhost", port=port or free_port(), **options
    )
    controller.start()
    try:
        yield controller.port
    finally:
        controller.stop()


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def mail_to(app: Flask, monkeypatch: pytest.MonkeyPatch):
    """Point the service at a mail server."""

    def point(url: str) -> None:
        settings = replace(app.extensions["bulwark"], mail_url=url)
        monkeypatch.setitem(app.extensions, "bulwark", settings)

    return point


def waiting() -> int:
    return db.session.scalar(select(func.count()).select_from(outbox.OutgoingMail)) or 0


def make_due() -> None:
    """Let the time pass that a delayed email waits."""
    db.session.execute(update(outbox.OutgoingMail).values(due_at=utcnow()))
    db.session.commit()


def send(recipient: str = "zoe@example.org") -> None:
    mail.send("Hello", recipient, "First.\n\nhttps://localhost/confirm/abc")
    db.session.commit()
