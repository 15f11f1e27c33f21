"""Measures what it costs to see a request: its line, its metrics, an event.

    .venv/bin/python -m tests.benchmarks.observe PYTHON

PYTHON is that of a service's .venv; the service is beside it. The processor time that
each adds is set against that of the same request to a bare Flask app, in turns. A plain
line is what json and logging cost by themselves: less than that no line can cost.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

# Runs in the service.
MEASURE = """
import json, os, statistics, sys, time
from logging import StreamHandler, getLogger

from flask import Flask, request
from flask_migrate import upgrade
from werkzeug.test import EnvironBuilder

from app import create_app
from bulwark.audit import events
from bulwark.observability import logging, request_log
from bulwark.database import db

ROUNDS, EACH = 60, 100
service = create_app()
out, sys.stdout = sys.stdout, open(os.devnull, "w")
logging.configure("INFO", readable=False)
with service.app_context():
    upgrade(revision="heads")
plain = getLogger("plain")
plain.addHandler(StreamHandler(sys.stdout))
plain.propagate = False


def write_plainly(response):
    fields = {"request_id": "f" * 32, "method": request.method, "milliseconds": 1.2}
    plain.info(json.dumps(fields | {"status": response.status_code}))
    return response


def app(*, simple=False, seen=False, event=False):
    made = Flask("bare")
    made.extensions |= service.extensions
    if simple:
        made.after_request(write_plainly)
    if seen:
        request_log.init_app(made)

    @made.get("/")
    def view():
        if event:
            events.emit("sys_startup", part="web")
        return "hello"

    environ = EnvironBuilder(path="/").get_environ()
    return lambda: list(made.wsgi_app(dict(environ), lambda *_: None))


def record():
    with service.app_context():
        events.record("session_expired")
        db.session.commit()


logging.LINES_A_MINUTE = 10**9
kinds = {
    "bare": app(),
    "plain line": app(simple=True),
    "line and metrics": app(seen=True),
    "line, metrics and event": app(seen=True, event=True),
    "audited event": record,
}
seconds = {kind: [] for kind in kinds}
for _ in range(ROUNDS):
    for kind, ask in kinds.items():
        begun = time.process_time()
        for _ in range(EACH):
            ask()
        seconds[kind].append((time.process_time() - begun) / EACH)
median = {kind: statistics.median(found) for kind, found in seconds.items()}
bare = median.pop("bare")
print(f"a bare Flask request: {bare * 1e6:.0f} microseconds", file=out)
for kind, found in median.items():
    more = found - (0 if kind == "audited event" else bare)
    print(f"{kind:<25}{more / bare:5.2f} of it", file=out)
"""


def main(python: Path) -> None:
    service = python.absolute().parent.parent.parent
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {
            "APP_ENV": "testing",
            "APP_DATABASE_URL": f"sqlite:///{folder}/observe.db",
            "APP_METRICS_FOLDER": f"{folder}/metrics",
        }
        command = (str(python.absolute()), "-c", MEASURE)
        subprocess.run(command, cwd=service, env=environment, check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
