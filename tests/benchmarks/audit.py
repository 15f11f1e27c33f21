"""Measures the audit trail: rows a second with 8 writers, and how long a check takes.

    .venv/bin/python -m tests.benchmarks.audit PYTHON [rows]

PYTHON is that of a service's .venv; the service is beside it. On SQLite and on
PostgreSQL, 8 processes each record events, one a transaction, first without links for
comparison. Then a trail of so many rows, a million by default, is checked whole.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.support.servers import Postgres

WRITERS, EACH = 8, 250
# Runs in the service.
PREPARE = """
from flask_migrate import upgrade
from app import create_app
with create_app().app_context():
    upgrade(revision="heads")
"""
WRITE = """
import sys, time
from sqlalchemy import event
from app import create_app
from bulwark.audit import events, pending
from bulwark.database import db

app = create_app()
if sys.argv[2] == "bare":
    for name, listener in pending.LISTENERS.items():
        event.remove(db.session, name, listener)
with app.app_context():
    print(flush=True)
    sys.stdin.readline()
    for _ in range(int(sys.argv[1])):
        events.record("session_expired", reason="a benchmark")
        db.session.commit()
"""
VERIFY = """
import sys, time
from sqlalchemy import insert
from app import create_app
from bulwark.audit import trail, verification
from bulwark.audit.events import SecurityEvent
from bulwark.database import db, utcnow

app, wanted = create_app(), int(sys.argv[1])
with app.app_context():
    with trail.unlocked():
        db.session.execute(trail.AuditLink.__table__.delete())
        db.session.execute(SecurityEvent.__table__.delete())
    db.session.commit()
    for first in range(0, wanted, 10_000):
        rows = [
            {"at": utcnow(), "name": "authn_login_fail", "address": "192.0.2.7",
             "user_agent": "Mozilla/5.0 (X11; Linux x86_64) Firefox/140", "details":
             {"factor": "password"}, "method": "POST", "route": "/login"}
            for _ in range(min(10_000, wanted - first))
        ]
        new = db.session.scalars(insert(SecurityEvent).returning(SecurityEvent), rows)
        trail.add_links(db.session(), new.all())
        db.session.commit()
        db.session.expunge_all()
    start = time.perf_counter()
    head = verification.verify()
    seconds = time.perf_counter() - start
    print(f"{head.position:,} rows checked in {seconds:.1f} s")
"""


def main(python: Path, rows: int) -> None:
    service = python.absolute().parent.parent.parent
    with tempfile.TemporaryDirectory() as folder, Postgres() as server:
        for url in (f"sqlite:///{folder}/audit.db", server.database()):
            environment = os.environ | {
                "APP_ENV": "testing",
                "APP_DATABASE_URL": url,
                "APP_METRICS_FOLDER": f"{folder}/metrics",
                "APP_LOG_LEVEL": "ERROR",
            }

            def command(
                script: str, *words: object, environment: dict[str, str] = environment
            ) -> subprocess.Popen[str]:
                return subprocess.Popen(
                    [python.absolute(), "-c", script, *map(str, words)],
                    cwd=service,
                    env=environment,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )

            assert command(PREPARE).wait() == 0
            print(url.partition(":")[0])
            speeds = {}
            for kind in ("bare", "linked"):
                writers = [command(WRITE, EACH, kind) for _ in range(WRITERS)]
                speeds[kind] = write(writers)
                print(
                    f"  {kind:<7}{speeds[kind]:8.0f} rows a second, {WRITERS} writers"
                )
            print(f"  ratio  {speeds['linked'] / speeds['bare']:8.2f}")
            print(f"  {command(VERIFY, rows).communicate()[0].strip()}", flush=True)


def write(writers: list[subprocess.Popen[str]]) -> float:
    """Start all at once; return how many rows a second they wrote."""
    for writer in writers:
        assert writer.stdout
        writer.stdout.readline()
    start = time.perf_counter()
    for writer in writers:
        assert writer.stdin
        writer.stdin.write("\n")
        writer.stdin.flush()
    assert [writer.wait() for writer in writers] == [0] * len(writers)
    return WRITERS * EACH / (time.perf_counter() - start)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1_000_000)
