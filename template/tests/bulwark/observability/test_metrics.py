"""Metrics: counted in each process, true in their sum, without a word about people."""

import os
import signal
import ssl
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
from flask import Flask
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.parser import text_string_to_metric_families

from bulwark.audit.catalogue import CATALOGUE
from bulwark.ops import dev_certificate, exporter
from tests.conftest import GOOD_PASSWORD, Visitor, add_person

# For each line that it reads: starts a service with one worker, both of which count,
# and prints the id of its group. It loads the code once for all of them.
COUNTING = """
import os, sys, time
from pathlib import Path
from bulwark.observability.metrics import _counts

def serve(once):
    os.setpgid(0, 0)
    counts = _counts(Path(sys.argv[1]))
    counts.events.labels("authn_logout").inc()
    if os.fork() == 0:
        while True:
            counts.events.labels("authn_login_fail").inc()
            counts.pool_in_use.inc()
            if once:
                os._exit(0)
            time.sleep(0.001)
    os.wait()
    os._exit(0)

for line in sys.stdin:
    service = os.fork()
    if service == 0:
        serve(once=line == "once\\n")
    print(service, flush=True)
    os.waitpid(service, 0)
"""


def samples(app: Flask) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Return all samples that Prometheus reads."""
    text = generate_latest(exporter.registry(app)).decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


class Watch:
    """Shows what was counted since it was made."""

    def __init__(self, app: Flask) -> None:
        self.app, self.before = app, samples(app)

    def more(self, name: str, **labels: str) -> float:
        key = (name, frozenset(labels.items()))
        return samples(self.app).get(key, 0) - self.before.get(key, 0)


@pytest.fixture
def watch(app: Flask) -> Watch:
    return Watch(app)


def test_requests_are_counted_by_route_and_status(watch: Watch, visitor: Visitor):
    visitor.get("/login")
    visitor.get("/login")
    visitor.get("/nothing/here")
    assert watch.more(
        "http_requests_total", method="GET", route="/login", status="200"
    ) == pytest.approx(2)
    assert watch.more(
        "http_requests_total", method="GET", route="none", status="404"
    ) == pytest.approx(1)
    assert watch.more(
        "http_request_duration_seconds_count", method="GET", route="/login"
    ) == pytest.approx(2)


def test_unknown_methods_share_one_label(watch: Watch, visitor: Visitor):
    for method in ("BREW", "BREWER"):
        visitor.client.open("/login", method=method)
    assert watch.more(
        "http_requests_total", method="other", route="/login", status="405"
    ) + watch.more(
        "http_requests_total", method="other", route="none", status="405"
    ) == pytest.approx(2)


def test_every_event_is_counted_and_shown_before_it_happens(
    watch: Watch, visitor: Visitor, person: str
):
    shown = {dict(labels).get("event") for name, labels in watch.before}
    assert CATALOGUE.keys() <= shown
    visitor.sign_in(person, "a wrong password")
    visitor.sign_in(person)
    assert watch.more("security_events_total", event="authn_login_fail") == 1
    success = "authn_login_successafterfail"
    assert watch.more("security_events_total", event=success) == 1


def test_how_far_sign_ins_come_is_counted(watch: Watch, app: Flask, visitor: Visitor):
    ada = add_person(app, "ada@example.org", "administrator")
    visitor.submit("/login", {"email": ada, "password": "a wrong password"})
    visitor.sign_in(ada)
    steps = {
        step: watch.more("sign_in_steps_total", step=step)
        for step in ("started", "password", "factor", "done")
    }
    assert steps == {"started": 2, "password": 1, "factor": 1, "done": 1}


def test_a_changed_password_is_no_sign_in(watch: Watch, visitor: Visitor, person: str):
    visitor.sign_in(person)
    new = "seven brass kettles whistle"
    form = {"new_password": new, "new_password_confirm": new}
    visitor.submit("/change", {"password": GOOD_PASSWORD, **form})
    assert watch.more("sign_in_steps_total", step="done") == 1
    assert watch.more("security_events_total", event="authn_login_success") == 1


def test_guessing_shows_without_a_name(watch: Watch, app: Flask, visitor: Visitor):
    people = [add_person(app, f"p{number}@example.org") for number in range(3)]
    for email in (*people, people[0], "nobody@example.org"):
        visitor.submit("/login", {"email": email, "password": "a wrong password"})
    now = {name: value for (name, labels), value in samples(app).items() if not labels}
    assert {
        name.removeprefix("sign_in_failures_recent"): value
        for name, value in now.items()
        if name.startswith("sign_in_failures_recent")
    } == {
        "": 5,
        "_accounts": 3,
        "_networks": 1,
        "_per_account_max": 2,
        "_per_network_max": 5,
    }


def test_no_label_names_a_person_or_an_address(
    watch: Watch, app: Flask, visitor: Visitor, person: str
):
    visitor.sign_in(person, "purple canary")
    visitor.sign_in(person)
    visitor.get(f"/reset/{GOOD_PASSWORD}")
    output = generate_latest(exporter.registry(app)).decode()
    for secret in (person, "canary", GOOD_PASSWORD, "127.0.0.1"):
        assert secret not in output


def test_no_route_of_the_service_shows_them(app: Flask, visitor: Visitor):
    assert visitor.get("/metrics").status_code == 404
    assert not [rule for rule in app.url_map.iter_rules() if "metrics" in rule.rule]


@contextmanager
def proxy(folder: Path, status: int) -> Iterator[int]:
    """Answer over TLS, where visitors come in, on the port that is returned."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/healthz" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    dev_certificate.make(folder, "proxy")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "localhost.pem", folder / "localhost.key")
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = Thread(target=server.serve_forever, args=[0.05])
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(("status", "up"), [(200, 1), (503, 0)])
def test_the_web_is_up_when_visitors_are_answered(
    app: Flask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, up: int
):
    with proxy(tmp_path, status) as port:
        settings = app.extensions["bulwark"]
        moved = replace(settings, base_url=f"https://localhost:{port}")
        monkeypatch.setitem(app.extensions, "bulwark", moved)
        found = samples(app)
        assert found[("web_up", frozenset())] == up
        left = found[("certificate_life_left_ratio", frozenset())]
        assert 0.99 < left <= 1
    assert samples(app)[("web_up", frozenset())] == 0


def counted(folder: Path, name: str) -> float:
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(folder))
    return registry.get_sample_value(name, {"event": "authn_login_fail"}) or 0


def test_a_killed_process_leaves_its_counts_and_its_files_to_the_next(tmp_path: Path):
    name = "security_events_total"
    seen = 0.0
    with services(tmp_path) as start:
        for _ in range(3):
            service = start("until it is killed")
            try:
                while not _counts_more(tmp_path, seen):
                    time.sleep(0.01)
            finally:
                os.killpg(service, signal.SIGKILL)
            assert counted(tmp_path, name) > seen
            seen = counted(tmp_path, name)
        assert len(list(tmp_path.glob("counter_*.db"))) == 2
        start("once")
    assert counted(tmp_path, name) == seen + 1


@contextmanager
def services(folder: Path) -> Iterator[Callable[[str], int]]:
    """Start services that count into a folder, and wait for the last one."""
    with subprocess.Popen(
        [sys.executable, "-c", COUNTING, folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as starter:
        assert starter.stdin
        assert starter.stdout
        lines, ids = starter.stdin, starter.stdout

        def start(until: str) -> int:
            lines.write(f"{until}\n")
            lines.flush()
            return int(ids.readline())

        yield start


def _counts_more(folder: Path, seen: float) -> bool:
    try:
        return counted(folder, "security_events_total") > seen
    except (ValueError, KeyError, struct.error):  # a file that is being made
        return False
