"""What the tests of events and of the audit trail share."""

import io
import json
import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import select, text

from bulwark.audit import trail, verification
from bulwark.audit.catalogue import CATALOGUE
from bulwark.audit.events import SecurityEvent
from bulwark.audit.trail import AuditLink
from bulwark.database import db
from tests.conftest import GOOD_PASSWORD, Visitor

WRONG = "a wrong password"
ROWS = 6  # of the fixture `recorded`
NEVER = {"fault": "", "head": "", "at": "2026-01-01T00:00:00+00:00"}


def tamper(*statements: str) -> None:
    """Change the tables as an attacker with full access to the database."""
    with trail.unlocked():
        for statement in statements:
            db.session.execute(text(statement))
    db.session.commit()
    db.session.expire_all()


def fault(**options: object) -> str:
    """Return what a verification finds."""
    with pytest.raises(verification.ChainBrokenError) as raised:
        verification.verify(**options)  # type: ignore[arg-type]
    return str(raised.value)


# Who it concerns, who did it, and the details, by the name of the event.
Recorded = tuple[str, str | None, str | None, dict[str, Any]]


@dataclass
class Watch:
    """Shows what was recorded since the last call of `new`."""

    app: Flask
    out: io.StringIO
    rows: int = 0
    lines: int = 0

    def new(self) -> list[Recorded]:
        """Return the new events; each is one row and one line with the same values."""
        with self.app.app_context():
            rows = db.session.scalars(
                select(SecurityEvent)
                .where(SecurityEvent.id > self.rows)
                .order_by(SecurityEvent.id)
            ).all()
            users = {
                user.id: user.email.partition("@")[0]
                for user in db.session.scalars(select(self._user_model()))
            }
        written = [json.loads(line) for line in self.out.getvalue().splitlines()]
        audited = {name for name, kind in CATALOGUE.items() if kind.audited}
        lines = [line for line in written[self.lines :] if line["event"] in audited]
        self.lines = len(written)
        self.rows = max([self.rows, *(row.id for row in rows)])
        assert len(lines) == len(rows)
        for row, line in zip(rows, lines, strict=True):
            self._compare(row, line)
        return [
            (
                row.name,
                users.get(row.user_id),
                users.get(row.actor_id),
                row.details,
            )
            for row in rows
        ]

    def all_text(self) -> str:
        """Return all that was ever written, in the table and the log."""
        with self.app.app_context():
            table = SecurityEvent.__table__
            rows = [tuple(row) for row in db.session.execute(select(table))]
        return f"{rows}\n{self.out.getvalue()}"

    def _user_model(self) -> Any:
        return self.app.extensions["security"].datastore.user_model

    def _compare(self, row: SecurityEvent, line: dict[str, Any]) -> None:
        settings = self.app.extensions["bulwark"]
        expected = {
            "event": row.name,
            "level": logging.getLevelName(row.kind.level).lower(),
            "description": row.kind.meaning,
            "service": settings.slug,
            "host": settings.domain,
            "version": settings.version,
            "logger": "bulwark",
            "user_id": row.user_id,
            "actor_id": row.actor_id,
            "address": row.address,
            "network": row.address,
            "user_agent": row.user_agent,
            "session": row.session,
            "request_id": row.request_id,
            "method": row.method,
            "route": row.route,
            "reason": row.reason,
            **row.details,
        }
        with self.app.app_context():
            link = db.session.scalars(
                select(AuditLink).where(AuditLink.event_id == row.id)
            ).one()
        assert line.pop("audit") == f"{link.position}:{link.mac.hex()}"
        if row.method is None:
            line.pop("request_id", None)  # Left over from a request of the test.
        moment = datetime.fromisoformat(line.pop("timestamp"))
        assert moment.utcoffset() == timedelta(0)
        assert abs(moment - row.at) < timedelta(seconds=10)
        assert line == {k: v for k, v in expected.items() if v is not None}


def give_password(visitor: Visitor, email: str, password: str = GOOD_PASSWORD) -> None:
    visitor.submit("/login", {"email": email, "password": password})


def post(visitor: Visitor, path: str, page: str = "/account") -> int:
    data = {"csrf_token": visitor.csrf_token(page)}
    headers = {"Referer": f"https://localhost{page}"}
    return visitor.client.post(path, data=data, headers=headers).status_code
