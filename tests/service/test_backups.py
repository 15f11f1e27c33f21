"""Backups of a real service: gunicorn and the worker at work, on either database."""

import os
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from copier import run_copy

from tests.support.clients import Browser, Service
from tests.support.edge import ENVIRONMENT
from tests.support.environments import lend_packages
from tests.support.servers import Postgres, eventually
from tests.support.visitor import DOMAIN, PASSWORD

MEGABYTES = 50
# Both databases fill a table with what does not compress.
NOISE = {
    "sqlite": """
        CREATE TABLE noise AS WITH RECURSIVE n(i) AS
        (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10 * {0})
        SELECT i, randomblob(100000) AS value FROM n
    """,
    "postgresql": """
        CREATE TABLE noise AS SELECT i, (
            SELECT string_agg(sha512((random()::text || i || k)::bytea), '')
            FROM generate_series(1, 1563) k
        ) AS value FROM generate_series(1, 10 * {0}) i
    """,
}


class Backups:
    """A service that is set up but not started, and its commands."""

    def __init__(self, folder: Path, kind: str, postgres: Postgres | None) -> None:
        self.folder, self.kind, self.postgres = folder, kind, postgres
        self.url = postgres.database() if postgres else None
        self.service = Service(folder, self.url)
        self.peak = 0

    def flask(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run a command; `peak` is then the most memory that it had, in MB."""
        command = self.folder / "service/.venv/bin/flask"
        with (
            (self.folder / "said").open("w+") as output,
            subprocess.Popen(
                [command, "--app", "wsgi", *arguments],
                cwd=self.folder / "service",
                env=ENVIRONMENT | {"HOME": str(self.folder)},
                stdout=output,
                stderr=output,
            ) as process,
        ):
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            self.peak = usage.ru_maxrss // 1024
            output.seek(0)
            return subprocess.CompletedProcess(
                process.args, process.returncode, output.read()
            )

    def does(self, *arguments: str | Path) -> None:
        done = self.flask(*arguments)
        assert done.returncode == 0, done.stdout

    @contextmanager
    def running(self) -> Iterator[None]:
        web = ("gunicorn", f"--bind=unix:{self.service.socket}")
        with (
            self.service.command(*web, log="web"),
            self.service.command("flask", "--app", "wsgi", "worker", log="worker"),
        ):
            eventually(self.service.socket.exists)
            yield
        assert self.service.failures() == []

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Let strangers sign up while the block lasts; none may be turned away."""
        stop, statuses = threading.Event(), list[int]()

        def sign_up() -> None:
            while not stop.is_set():
                email = f"stranger{len(statuses)}@bulwark-tests.net"
                answer = Browser(self.service).fill_in("/register", email=email)
                statuses.append(answer.status)

        stranger = threading.Thread(target=sign_up)
        stranger.start()
        try:
            eventually(lambda: len(statuses) > 2)
            yield
        finally:
            stop.set()
            stranger.join()
        assert set(statuses) == {200}

    def make_noise(self) -> None:
        statement = NOISE[self.kind].format(MEGABYTES)
        if self.postgres and self.url:
            self.postgres.call("psql", "-qd", self.url, "-c", statement)
            return
        path = self.folder / "service/instance/production.db"
        with closing(sqlite3.connect(path)) as connection:
            connection.execute(statement)
            connection.commit()

    def newest(self) -> Path:
        return max((self.folder / "backups").glob("*.backup"))


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def made(
    request: pytest.FixtureRequest,
    template: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Backups]:
    kind, folder = request.param, tmp_path_factory.mktemp(f"backups-{request.param}")
    made, answers = folder / "service", {"domain": DOMAIN, "database": kind}
    run_copy(str(template), made, answers, defaults=True, unsafe=True, quiet=True)
    lend_packages(made, tmp_path_factory, "--no-dev")
    server = request.getfixturevalue("postgres") if kind == "postgresql" else None
    backups = Backups(folder, kind, server)
    with backups.service.mailbox.running():
        backups.does("prepare")
        yield backups


@pytest.mark.needs("postgresql")
def test_a_service_comes_back_as_it_was_when_the_backup_was_made(made: Backups) -> None:
    folder = made.folder / "backups"
    with made.running():
        made.service.person("early@bulwark-tests.net")
        with made.busy():
            made.does("backup", folder)
        made.service.person("late@bulwark-tests.net")
        refused = made.flask("restore", made.newest(), "--replace")
        assert refused.returncode == 1
        assert "Stop the service" in refused.stdout
        made.service.person("latest@bulwark-tests.net")

    made.does("restore", made.newest(), "--replace")
    made.does("prepare")
    with made.running():
        for name, known in (("early", True), ("late", False), ("latest", False)):
            browser = Browser(made.service)
            email = f"{name}@bulwark-tests.net"
            browser.fill_in("/login", email=email, password=PASSWORD)
            assert browser.is_signed_in() == known, email
        made.service.person("late@bulwark-tests.net")


@pytest.mark.needs("postgresql")
def test_memory_does_not_grow_with_the_data(made: Backups) -> None:
    folder = made.folder / "backups"
    peaks = {}
    for size in ("small", "large"):
        made.does("backup", folder)
        peaks[size, "backup"] = made.peak
        made.does("restore", made.newest(), "--replace")
        peaks[size, "restore"] = made.peak
        if size == "small":
            made.make_noise()
    assert made.newest().stat().st_size > MEGABYTES * 10**6
    for command in ("backup", "restore"):
        more = peaks["large", command] - peaks["small", command]
        assert more < MEGABYTES // 4, peaks
