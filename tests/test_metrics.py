"""Metrics of a real service: true for all workers, and what attacks set off."""

import os
import re
import signal
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from copier import run_copy

from tests.conftest import run
from tests.servers import eventually, free_port, wait_for_port
from tests.test_edge import DOMAIN
from tests.test_monitoring import (
    METRICS,
    Chain,
    Shop,
    needs_alertmanager,
    needs_prometheus,
)
from tests.test_races import Browser, Service

# Nobody serves a certificate here, and Prometheus itself says who is up.
NOT_HERE = {
    "certificate_life_left_ratio",
    "certificate_expires_timestamp_seconds",
    "up",
}


class Watched(Service):
    """A service in production, with its worker and with what tells its metrics."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, None)
        self.port = free_port()
        with (folder / "service/.env.production").open("a") as file:
            file.write(f"APP_METRICS_BIND=127.0.0.1:{self.port}\n")

    @contextmanager
    def running(self) -> Iterator["Watched"]:
        flask = ("flask", "--app", "wsgi")
        with self.mailbox.running():
            with self.command(*flask, "prepare", log="prepare") as done:
                assert done.wait() == 0, (self.folder / "prepare.err").read_text()
            with (
                self.command("gunicorn", f"--bind=unix:{self.socket}", log="web"),
                self.command(*flask, "worker", log="worker"),
                self.command(*flask, "metrics", log="metrics") as metrics,
            ):
                eventually(self.socket.exists)
                wait_for_port(self.port, metrics)
                yield self

    def samples(self) -> Iterator[tuple[str, str, float]]:
        """Yield each name with its labels and its value."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics") as answer:
            told = answer.read().decode()
        for name, labels, value in re.findall(r"(?m)^(\w+)({.*})? (\S+)$", told):
            yield name, labels, float(value)

    def value(self, metric: str, *labels: str) -> float:
        return sum(
            value
            for name, said, value in self.samples()
            if name == metric and all(label in said for label in labels)
        )


@pytest.fixture(scope="module")
def watched(
    template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("watched")
    made = folder / "service"
    answers = {"domain": DOMAIN}
    run_copy(str(template), made, answers, defaults=True, unsafe=True, quiet=True)
    run(os.environ["UV"], "sync", "--quiet", "--no-dev", cwd=made)
    with Watched(folder).running() as service:
        yield service


def test_what_rules_and_dashboards_ask_for_is_told(watched: Watched) -> None:
    visitor = Browser(watched)
    visitor.ask("/login")
    told = {name for name, _, _ in watched.samples()}
    unseen = {"log_lines_dropped_total"}  # has no sample until one was
    assert METRICS - NOT_HERE - unseen <= told


def test_all_workers_are_counted_and_a_killed_one_loses_nothing(
    watched: Watched,
) -> None:
    def seen() -> float:
        return watched.value("http_requests_total", 'route="/healthz"', 'status="200"')

    before, answered, stop = seen(), [0] * 8, time.monotonic() + 6

    def visit(number: int) -> None:
        browser = Browser(watched)
        while time.monotonic() < stop:
            try:
                answered[number] += browser.ask("/healthz").status == 200
            except OSError:
                continue

    threads = [threading.Thread(target=visit, args=[n]) for n in range(len(answered))]
    for thread in threads:
        thread.start()
    time.sleep(2)
    os.kill(workers(watched)[0], signal.SIGKILL)
    for thread in threads:
        thread.join()
    # One that was killed may have counted what it could not send any more.
    assert 0 <= seen() - before - sum(answered) <= 4
    assert sum(answered) > 100


def workers(watched: Watched) -> list[int]:
    said = (watched.folder / "web").read_text()
    said += (watched.folder / "web.err").read_text()
    pids = map(int, re.findall(r"Booting worker with pid: (\d+)", said))
    found = [pid for pid in pids if Path(f"/proc/{pid}").exists()]
    assert len(found) >= 2
    return found


@pytest.fixture
def chain(watched: Watched, tmp_path: Path) -> Iterator[Chain]:
    shop = Shop()
    with shop.open() as inbox:
        chain = Chain(tmp_path, shop, inbox, watched.port)
        with chain.running():
            eventually(lambda: chain.knows("up == 1"))
            yield chain


def guess(watched: Watched, email: str, times: int = 1) -> None:
    browser = Browser(watched)
    for _ in range(times):
        browser.fill_in("/login", email=email, password="a wrong password")


@needs_prometheus
@needs_alertmanager
def test_stolen_passwords_that_are_tried_from_many_networks_wake_somebody(
    watched: Watched, chain: Chain, record_property: Any
) -> None:
    begun = time.monotonic()
    for number in range(16):
        guess(watched, f"stolen{number}@bulwark-tests.net")
    chain.told("CredentialStuffing")
    record_property("seconds from attack to alert", time.monotonic() - begun)


@needs_prometheus
@needs_alertmanager
def test_a_new_administrator_is_told(watched: Watched, chain: Chain) -> None:
    eventually(lambda: chain.knows("administrators"))
    email = "eve@bulwark-tests.net"
    watched.person(email)
    flask = ("flask", "--app", "wsgi", "accounts", "grant", email, "administrator")
    with watched.command(*flask, log="grant") as done:
        assert done.wait() == 0, (watched.folder / "grant.err").read_text()
    chain.told("NewAdministrator")
