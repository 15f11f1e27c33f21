"""Runs each kind of request in the service's process, in turns with a bare Flask app.

    benchmark_requests.py time ROUNDS EACH    processor time of a request, nanoseconds
    benchmark_requests.py count               statements and round trips of a request
    benchmark_requests.py instructions EACH   under `valgrind --tool=callgrind`

Prints JSON. `BENCHMARK_CLIENT` holds what benchmark_accounts.py printed.
"""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from io import BytesIO
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import round_trips

MODE = sys.argv[1]
database = urlsplit(os.environ["APP_DATABASE_URL"])
proxy = None
if MODE == "count" and database.hostname:
    proxy = round_trips.CountingProxy(database.hostname, database.port or 5432)
    place = f"{database.username}@127.0.0.1:{proxy.port}"
    os.environ["APP_DATABASE_URL"] = urlunsplit(database._replace(netloc=place))
# The service writes its log to stdout: as in production, but to nobody.
answer, sys.stdout = sys.stdout, open(os.devnull, "w")  # noqa: SIM115

import benchmark_bare  # noqa: E402
from benchmark_views import REPORT, app  # noqa: E402
from bulwark.audit import events  # noqa: E402
from bulwark.database import db  # noqa: E402
from bulwark.observability import line_limit  # noqa: E402
from sqlalchemy import event  # noqa: E402
from werkzeug.test import EnvironBuilder  # noqa: E402

Run = Callable[[], object]
client = json.loads(os.environ["BENCHMARK_CLIENT"])
HOST = app.config["TRUSTED_HOSTS"][0]
NOTE = {"text": "a note"}
SIGNED_IN = {"Cookie": client["cookie"]}
line_limit.LINES_A_MINUTE = 10**9  # a flood of events is not what is measured


def request_to(wsgi: Any, path: str, note: bool, headers: dict[str, str]) -> Run:
    """Return what sends a request as nginx passes it on, once its answer is right."""
    body = json.dumps(NOTE).encode() if note else b""
    environ = EnvironBuilder(
        path=path,
        base_url=f"http://{HOST}",
        method="POST" if note else "GET",
        json=NOTE if note else None,
        headers={
            "X-Forwarded-For": "192.0.2.7",
            "X-Forwarded-Proto": "https",
            "X-Forwarded-Host": HOST,
            "X-Request-ID": "0123456789abcdef" * 2,
            "Referer": f"https://{HOST}/",
            "User-Agent": "Mozilla/5.0 (X11; Linux x86_64) Firefox/150.0",
            "Accept": "text/html,application/json;q=0.9",
            **headers,
        },
    ).get_environ()
    del environ["wsgi.input"]
    statuses: list[str] = []

    def start(status: str, headers: list[tuple[str, str]], *_: object) -> None:
        statuses[:] = [status]

    def send() -> bytes:
        parts: Iterable[bytes] = wsgi(environ | {"wsgi.input": BytesIO(body)}, start)
        text = b"".join(parts)
        if close := getattr(parts, "close", None):
            close()
        return text

    text = send()
    assert statuses == ["200 OK"], (path, statuses, text)
    if text.startswith(b"{"):
        assert REPORT.items() <= json.loads(text).items(), text
    return send


def audited_event() -> None:
    with app.app_context():
        events.record("session_expired", reason="a benchmark")
        db.session.commit()


def kinds() -> dict[str, tuple[Run, Run]]:
    """Return each kind of request: to the service, and the same to a bare app."""
    bare = benchmark_bare.make(app, REPORT)
    post = SIGNED_IN | {"X-CSRFToken": client["csrf_token"]}
    token = {"Authorization": f"Bearer {client['token']}"}
    wanted: dict[str, tuple[str, bool, dict[str, str]]] = {
        "anonymous JSON": ("/benchmark/json", False, {}),
        "anonymous page": ("/", False, {}),
        "signed-in JSON": ("/benchmark/me", False, SIGNED_IN),
        "signed-in page": ("/", False, SIGNED_IN),
        "signed-in POST with CSRF": ("/benchmark/notes", True, post),
        "access token": ("/benchmark/report", False, token),
    }
    found: dict[str, tuple[Run, Run]] = {}
    for name, (path, note, headers) in wanted.items():
        send = request_to(app, path, note, headers)
        other = benchmark_bare.path_for(path, send())
        found[name] = send, request_to(bare, other, note, headers)
    plain = request_to(bare, "/json", False, {})
    for name, other_app in benchmark_bare.observed(app, REPORT).items():
        found[name] = request_to(other_app, "/json", False, {}), plain
    found["event with its audit row"] = audited_event, plain
    return found


def timed(run: Run, each: int) -> float:
    """Return nanoseconds of processor time; the caches are warm from a few before."""
    for _ in range(each // 3):
        run()
    begun = time.process_time_ns()
    for _ in range(each):
        run()
    return (time.process_time_ns() - begun) / each


def time_all(rounds: int, each: int) -> dict[str, dict[str, float]]:
    """Return the medians: of both, and of the ratios of neighbors."""
    pairs: dict[str, list[tuple[float, float]]] = {}
    requests = kinds()
    for number in range(-1, rounds):  # the first round is to get warm
        for name, (send, bare) in requests.items():
            pair = timed(send, each), timed(bare, each)
            if number >= 0:
                pairs.setdefault(name, []).append(pair)
    return {
        name: {
            "service": median(ours for ours, _ in found),
            "bare": median(theirs for _, theirs in found),
            "ratio": median(ours / theirs for ours, theirs in found),
        }
        for name, found in pairs.items()
    }


def count_all() -> dict[str, dict[str, float]]:
    """Return how many statements and round trips each kind takes once it is warm."""
    statements: list[str] = []
    with app.app_context():
        event.listen(
            db.engine,
            "before_cursor_execute",
            lambda *given: statements.append(given[2]),
        )
    counts, times = {}, 10
    for name, (send, _) in kinds().items():
        for _ in range(times):  # psycopg prepares what it is asked a fifth time
            send()
        statements.clear()
        before = proxy.round_trips if proxy else 0
        for _ in range(times):
            send()
        counts[name] = {"statements": len(statements) / times}
        if proxy:
            counts[name]["round trips"] = (proxy.round_trips - before) / times
    return counts


def count_instructions(each: int) -> dict[str, dict[str, float]]:
    """Return the instructions of a request and of its bare pair."""
    counts = {}
    for name, pair in kinds().items():
        ours, bare = (_instructions(run, each) for run in pair)
        counts[name] = {"service": ours, "bare": bare, "ratio": ours / bare}
    return counts


def _instructions(run: Run, each: int) -> float:
    for _ in range(10):
        run()
    _control("--instr=on")
    _control("--zero")
    for _ in range(each):
        run()
    _control("--dump")
    _control("--instr=off")
    newest = max(
        Path(os.environ["BENCHMARK_FOLDER"]).glob("callgrind.*.*"),
        key=lambda path: int(path.suffix[1:]),
    )
    found = re.search(r"^(?:totals|summary): (\d+)", newest.read_text(), re.MULTILINE)
    assert found, newest
    return int(found[1]) / each


def _control(option: str) -> None:
    command = ["callgrind_control", option, str(os.getpid())]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, stdout=quiet, stderr=quiet) as process:
        while process.poll() is None:  # callgrind acts on it while this runs
            time.sleep(0.002)


if __name__ == "__main__":
    numbers = map(int, sys.argv[2:])
    modes = {"time": time_all, "count": count_all, "instructions": count_instructions}
    print(json.dumps(modes[MODE](*numbers)), file=answer, flush=True)
