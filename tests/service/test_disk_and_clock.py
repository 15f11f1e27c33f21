"""A full disk, a clock that jumps, a flood: the service serves on, its counts hold."""

import json
import os
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import run
from tests.support.clients import Browser, add_app, code_of
from tests.support.servers import eventually
from tests.support.visitor import PASSWORD
from tests.support.watched import FASTER_JOBS, Watched, copy_service, hasten

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="a disk of its own needs root"
)
NEW_PASSWORD = "twelve-yellow-harvesters-hum"
# What is served at any time; the rest of a page of somebody needs the database.
TARGETS = ("/", "/login", "/healthz")
TRIES, LINES_A_MINUTE = 10_000, 1000
EACH = 100  # of one network, which has 30 of them checked
# No process may have a clock of its own: the service reads how wrong it is from a file.
CLOCK = """
import datetime, time
from pathlib import Path

right = time.time
time.time = lambda: right() + float(Path("{file}").read_text() or 0)


class Clock:
    @staticmethod
    def now(tz):
        return datetime.datetime.fromtimestamp(time.time(), tz)


bulwark.database.datetime = Clock
"""
MINUTE = 10  # how many times as fast a minute of the worker is


class Machine(Watched):
    """A service whose data are on a small disk of their own, and whose clock we set."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.clock = folder / "clock"
        self.data = folder / "service/instance"
        self.set_clock(0)
        with (folder / "service/app/__init__.py").open("a") as file:
            file.write(CLOCK.format(file=self.clock))
        hasten(folder / "service", MINUTE, FASTER_JOBS)
        # Deployed, the metrics are in memory.
        self.set("METRICS_FOLDER", f"{folder}/counts")

    def set_clock(self, hours: int) -> None:
        """Put the clock forward or back from now."""
        self.clock.write_text(str(hours * 3600))

    def administrator(self, email: str) -> Browser:
        seed = add_app(self.person(email))
        self.flask("accounts", "grant", email, "administrator")
        browser = Browser(self)
        browser.fill_in("/login", email=email, password=PASSWORD)
        code = code_of(seed, time.time())
        assert browser.fill_in("/login/code", code=code).status == 302
        return browser

    @contextmanager
    def full_disk(self) -> Iterator[None]:
        """Leave no byte of the disk while the block lasts."""
        filler = self.data / "filler"
        dd = ["dd", "if=/dev/zero", f"of={filler}"]
        subprocess.run(dd, stderr=subprocess.PIPE, check=False)  # it fails in the end
        try:
            yield
        finally:
            filler.unlink()


@pytest.fixture(scope="module")
def machine(
    template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Machine]:
    folder = tmp_path_factory.mktemp("machine")
    copy_service(tmp_path_factory, template, folder)
    machine = Machine(folder)
    machine.data.mkdir(exist_ok=True)
    run(
        "mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(machine.data), cwd=folder
    )
    try:
        with machine.running():
            yield machine
    finally:
        run("umount", "--lazy", str(machine.data), cwd=folder)


def lines_of(machine: Machine) -> list[dict[str, Any]]:
    """Return what the web processes have logged."""
    output = (machine.folder / "web").read_text().splitlines()
    return [json.loads(line) for line in output if line.startswith("{")]


def test_a_full_disk_lets_people_read_and_nobody_change_what_must_be_recorded(
    machine: Machine,
) -> None:
    admin = machine.administrator("admin@bulwark-tests.net")
    reader = machine.person("reader@bulwark-tests.net")
    victim = machine.person("victim@bulwark-tests.net")
    page = admin.ask("/admin/users", Accept="application/json").body
    (number,) = [
        user["id"] for user in json.loads(page)["users"] if "victim" in user["email"]
    ]
    lock = admin.prepare(f"/admin/users/{number}/lock", reason="a bad day")
    change = reader.prepare("/change", password=PASSWORD, new_password=NEW_PASSWORD)
    known = machine.value("audit_rows")
    with machine.full_disk():
        assert {Browser(machine).ask(target).status for target in TARGETS} == {200}
        assert lock().status == 503
        assert change().status == 503
        assert {reader.ask(t).status for t in ("/", "/account")} == {200}
        assert victim.is_signed_in()
        with pytest.raises(AssertionError, match="disk is full"):
            machine.flask("accounts", "lock", "--reason=x", "victim@bulwark-tests.net")
        assert machine.value("disk_free_ratio") < 0.03
        assert machine.value("audit_rows") == known
    assert (
        Browser(machine)
        .fill_in("/login", email="reader@bulwark-tests.net", password=PASSWORD)
        .status
        == 302
    ), "the password is the old one"
    assert victim.is_signed_in()
    assert lock().status == 302
    assert not victim.is_signed_in()
    machine.flask("audit", "verify")


def test_a_clock_that_jumps_keeps_nobody_out_and_breaks_no_trail(
    machine: Machine,
) -> None:
    email = "traveller@bulwark-tests.net"
    machine.person(email)
    machine.set_clock(+3)
    guesser = Browser(machine)
    for _ in range(11):
        refused = guesser.fill_in("/login", email=email, password="a wrong one")
    assert refused.status == 429
    machine.set_clock(-2)
    back = Browser(machine)
    assert back.fill_in("/login", email=email, password=PASSWORD).status == 302
    assert back.is_signed_in()
    machine.flask("audit", "verify")
    machine.set_clock(0)
    beat = machine.value("jobs_heartbeat_timestamp_seconds")
    eventually(lambda: 0 < machine.value("jobs_heartbeat_timestamp_seconds") != beat)


def test_ten_thousand_wrong_passwords_write_few_lines_and_are_all_counted(
    machine: Machine, record_property: Any
) -> None:
    """As fast as it goes; it takes no more than a minute or two."""

    def counted() -> float:
        return machine.value("http_requests_total", 'method="POST"', 'route="/login"')

    before, begun, first = counted(), time.monotonic(), len(lines_of(machine))
    with ThreadPoolExecutor(16) as pool:
        statuses = Counter(
            status
            for found in pool.map(guess, [machine] * (TRIES // EACH))
            for status in found
        )
    seconds = time.monotonic() - begun
    record_property("seconds for 10,000 tries", round(seconds))
    record_property("answers", dict(statuses))
    assert counted() - before == sum(statuses.values()) == TRIES
    new = lines_of(machine)[first:]
    refused = sum(n for status, n in statuses.items() if status >= 400)
    shown = [line for line in new if line.get("status", 0) >= 400]
    dropped = machine.value("log_lines_dropped_total", 'event="request 429"')
    minutes = seconds / 60 + 1
    assert len(shown) <= LINES_A_MINUTE * minutes * 2 * 3  # processes, statuses
    assert dropped > 0
    assert len(shown) + machine.value("log_lines_dropped_total", "request") == refused
    assert Browser(machine).ask("/login").status == 200


def guess(machine: Machine) -> list[int]:
    browser = Browser(machine)
    send = browser.prepare("/login", email="nobody@example.net", password="a guess")
    return [send().status for _ in range(EACH)]
