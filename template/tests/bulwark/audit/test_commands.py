"""`flask audit`: what the operator reads and exports."""

import json

from flask import Flask
from sqlalchemy import select

from bulwark.audit import events
from bulwark.audit.trail import AuditLink
from bulwark.database import db, utcnow
from tests.bulwark.audit.support import ROWS, tamper


def test_the_operator_sees_what_is_wrong(app: Flask, recorded: list[int]):
    run = app.test_cli_runner().invoke
    good = run(args=["audit", "verify"])
    assert good.exit_code == 0
    assert "6 rows, the last one 6:" in good.output
    anchor = good.output.rpartition(" ")[2].rstrip(".\n")
    assert run(args=["audit", "verify", "--anchor", anchor]).exit_code == 0
    assert "is not ROW:MAC" in run(args=["audit", "verify", "--anchor", "6"]).output
    tamper(f"UPDATE security_events SET reason = 'x' WHERE id = {recorded[0]}")
    bad = run(args=["audit", "verify"])
    assert bad.exit_code == 1
    assert "broken: row 1 is not as it was written" in bad.output


def test_rows_are_exported_with_their_links(app: Flask, recorded: list[int]):
    events.record("authn_logout", reason="another kind")
    db.session.commit()
    run = app.test_cli_runner().invoke
    today = f"{utcnow():%Y-%m-%d}"
    output = run(args=["audit", "export", "--name", "session_expired", "--from", today])
    rows = [json.loads(line) for line in output.output.splitlines()]
    assert [row["reason"] for row in rows] == [f"event {n + 1}" for n in range(ROWS)]
    links = db.session.scalars(select(AuditLink).order_by(AuditLink.position)).all()
    assert [row["mac"] for row in rows] == [link.mac.hex() for link in links[:ROWS]]
