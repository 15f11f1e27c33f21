"""Alerts that what a service is made of sets off: each by the real thing.

What takes long to raise an alert is set off first, side by side; see TestWhatTakesTime.
"""

import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import run
from tests.support.alerting import (
    SPEED,
    ExpectAlert,
    alert_expectation,
    firing,
    watching,
    while_it_lasts,
)
from tests.support.chain import LONG, Chain
from tests.support.clients import Browser, add_app
from tests.support.servers import (
    Postgres,
    eventually,
    free_port,
    running,
    wait_for_port,
)
from tests.support.visitor import DOMAIN, PASSWORD, Response
from tests.support.watched import Watched, copy_service, hasten

pytestmark = pytest.mark.needs(
    *("prometheus", "prometheus-alertmanager", "nginx"), *("postgresql", "redis-server")
)
RUSH = 3600  # for what takes a night: an hour of the rules is a second here
PAUSED = 15.2  # seconds until five more codes are taken: WINDOW in guessing.py


class Whole(Watched):
    """A service with PostgreSQL and Redis, for which an hour is a minute, too."""

    PARTS = ("redis", *Watched.PARTS)

    def __init__(self, folder: Path, postgres: Postgres) -> None:
        self.postgres, self.url = postgres, postgres.database()
        super().__init__(folder, self.url, proxy=True)
        hasten(folder / "service", SPEED)
        self.redis = free_port()
        self.set("REDIS_URL", f"redis://127.0.0.1:{self.redis}")
        self.instance = folder / "service/instance"

    def start(self, part: str) -> None:
        if part != "redis":
            super().start(part)
            return
        port = ("--port", str(self.redis), "--bind", "127.0.0.1")
        command = ("redis-server", *port, "--save", "", "--dir", str(self.folder))
        started = running(*command, log=self.folder / "redis")
        self.parts["redis"] = self.stack.enter_context(started)
        wait_for_port(self.redis, self.parts["redis"])

    def sql(self, *statements: str) -> None:
        told = [word for statement in statements for word in ("-c", statement)]
        self.postgres.call("psql", self.url, "-v", "ON_ERROR_STOP=1", *told)

    def python(self, code: str) -> None:
        with self.command("python", "-c", code, log="python") as done:
            assert done.wait() == 0, (self.folder / "python.err").read_text()

    def fill(self, left: float) -> None:
        """Let a file grow until so much of the disk is left."""
        disk = os.statvfs(self.instance)
        with (self.instance / "growing").open("ab") as file:
            more = int((disk.f_bavail - left * disk.f_blocks) * disk.f_frsize)
            os.posix_fallocate(file.fileno(), file.tell(), more)


@contextmanager
def disk(folder: Path) -> Iterator[None]:
    """Give a folder a small disk of its own, where that is allowed."""
    folder.mkdir(mode=0o700, exist_ok=True)
    kind = ("-t", "tmpfs", "-o", "size=256m,mode=700", "tmpfs")
    mounted = subprocess.run(["mount", *kind, folder], check=False).returncode == 0
    try:
        yield
    finally:
        if mounted:
            run("umount", "--lazy", folder, cwd=folder.parent)


@pytest.fixture(scope="module")
def whole(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    folder = tmp_path_factory.mktemp("whole")
    made = copy_service(tmp_path_factory, template, folder, database="postgresql")
    with (
        disk(made / "instance"),
        Postgres() as postgres,
        Whole(folder, postgres).running() as service,
    ):
        yield service


@pytest.fixture(scope="module")
def beside(whole: Whole) -> Iterator[Chain]:
    with watching(whole, whole.folder / "watching") as chain:
        yield chain


@pytest.fixture
def expect_alert(
    beside: Chain, record_property: Callable[[str, Any], None]
) -> ExpectAlert:
    return alert_expectation(beside, record_property)


@pytest.fixture(scope="module")
def rushing(whole: Whole) -> Iterator[Chain]:
    with watching(whole, whole.folder / "rushing", RUSH) as chain:
        yield chain


@pytest.fixture
def in_time(rushing: Chain, record_property: Callable[[str, Any], None]) -> ExpectAlert:
    return alert_expectation(rushing, record_property)


# --- What takes its time --------------------------------------------------------------


def code_form(service: Watched, email: str) -> Callable[[], Response]:
    """Give the right password; return what then sends a wrong code."""
    guesser = Browser(service)
    guesser.fill_in("/login", email=email, password=PASSWORD)
    return guesser.prepare("/login/code", code="000000")


def guess(forms: list[Callable[[], Response]], over: threading.Event) -> list[int]:
    """Send wrong codes until they are refused, after each pause again."""
    statuses = []
    for form in forms:
        begun = time.monotonic()
        statuses += [form().status for _ in range(6)]
        if over.wait(max(0, PAUSED - (time.monotonic() - begun))):
            break
    return statuses


class Begun:
    """What was set off and has raised no alert yet."""

    def __init__(self) -> None:
        self.moments = dict[str, tuple[Chain, float]]()
        self.over = threading.Event()
        self.guessing: Future[list[int]]

    def expect(self, chain: Chain, name: str) -> None:
        """See that an alert does not fire, just before it is set off."""
        eventually(lambda: not chain.knows(firing(name)), LONG)
        self.moments[name] = (chain, time.time())


@pytest.fixture(scope="class")
def begun(whole: Whole, beside: Chain, rushing: Chain) -> Iterator[Begun]:
    """Set off all of it side by side."""
    email = "codes@bulwark-tests.net"
    add_app(whole.person(email))
    forms = [code_form(whole, email) for _ in range(6)]
    whole.flask("backup", str(whole.folder / "backups"))
    begun = Begun()
    # There is none in the nights that follow.
    begun.expect(rushing, "BackupFailing")
    with ExitStack() as end, ThreadPoolExecutor() as pool:
        begun.expect(beside, "AuditCheckStale")
        jobs = "from wsgi import app; from bulwark.audit import checks\n"
        jobs += "for job in (checks.check, checks.check_new): job."
        whole.python(f"{jobs}revoke()")
        end.callback(whole.python, f"{jobs}restore()")
        begun.expect(beside, "MailQueueStuck")
        end.enter_context(whole.mailbox.away())
        Browser(whole).fill_in("/register", email="waits@bulwark-tests.net")
        begun.expect(beside, "SecondFactorGuessing")
        begun.guessing = pool.submit(guess, forms, begun.over)
        end.callback(begun.over.set)
        yield begun


@pytest.fixture
def alert_follows(
    begun: Begun, record_property: Callable[[str, Any], None]
) -> Callable[[str], None]:
    """Return a function that waits for the alert of what was set off."""

    def alert_follows(name: str) -> None:
        chain, moment = begun.moments[name]
        chain.wait_for_alert(name, moment)
        seconds = round(time.time() - moment, 1)
        record_property(f"seconds from attack to {name}", seconds)

    return alert_follows


class TestWhatTakesTime:
    """None of them is set off by what sets off another one."""

    def test_a_certificate_that_is_not_renewed_raises_a_ticket_and_then_a_page(
        self, whole: Whole, begun: Begun, in_time: ExpectAlert
    ) -> None:
        assert whole.nginx
        with in_time("CertificateQuarterLeft"):
            whole.nginx.serve(DOMAIN, left=0.24)
        with in_time("CertificateExpiring"):
            whole.nginx.serve(DOMAIN, left=0.09)
        whole.nginx.serve(DOMAIN, left=0.9)

    def test_a_disk_that_fills_raises_a_ticket_and_then_a_page(
        self, whole: Whole, begun: Begun, in_time: ExpectAlert
    ) -> None:
        if not whole.instance.is_mount():
            pytest.skip("may not mount a disk here")
        with in_time("DiskFilling", severity="ticket"):
            whole.fill(left=0.08)
        with in_time("DiskFilling", severity="page"):
            whole.fill(left=0.02)
        (whole.instance / "growing").unlink()

    def test_a_night_without_a_backup_raises_an_alert(
        self, alert_follows: Callable[[str], None]
    ) -> None:
        alert_follows("BackupFailing")

    def test_undelivered_email_raises_an_alert(
        self, alert_follows: Callable[[str], None]
    ) -> None:
        alert_follows("MailQueueStuck")

    def test_repeated_wrong_codes_page_the_operator(
        self, begun: Begun, alert_follows: Callable[[str], None]
    ) -> None:
        alert_follows("SecondFactorGuessing")
        begun.over.set()
        statuses = begun.guessing.result()
        assert statuses == ([200] * 5 + [429]) * (len(statuses) // 6)

    def test_an_unchecked_trail_raises_an_alert(
        self, alert_follows: Callable[[str], None]
    ) -> None:
        alert_follows("AuditCheckStale")


# --- What is away ---------------------------------------------------------------------


def test_a_dead_worker_pages_the_operator(
    whole: Whole, expect_alert: ExpectAlert
) -> None:
    while_it_lasts(whole.without("worker"), expect_alert("WorkerGone"))


def test_a_dead_web_pages_the_operator_although_the_metrics_are_there(
    whole: Whole, beside: Chain, expect_alert: ExpectAlert
) -> None:
    while_it_lasts(whole.without("web"), expect_alert("WebDown"))
    assert not beside.knows("up == 0")


def test_missing_metrics_page_the_operator(
    whole: Whole, expect_alert: ExpectAlert
) -> None:
    while_it_lasts(whole.without("metrics"), expect_alert("TargetDown"))


def test_a_database_that_is_down_pages_the_operator(
    whole: Whole, expect_alert: ExpectAlert
) -> None:
    while_it_lasts(whole.postgres.away(), expect_alert("DatabaseDown"))


def test_a_redis_that_is_down_raises_an_alert(
    whole: Whole, expect_alert: ExpectAlert
) -> None:
    while_it_lasts(whole.without("redis"), expect_alert("LimiterDegraded"))


def test_a_job_that_the_service_did_not_queue_pages_the_operator(
    whole: Whole, expect_alert: ExpectAlert
) -> None:
    with expect_alert("JobRefused"):
        whole.sql(
            "INSERT INTO huey_task (queue, data, priority)"
            " VALUES ('jobs', 'cos system', 0)"
        )


def test_a_job_that_fails_for_good_raises_an_alert(
    whole: Whole, expect_alert: ExpectAlert
) -> None:
    with expect_alert("JobFailed"):
        # A worker runs it: no release has a job with this name.
        whole.python(
            "from wsgi import app; from bulwark.database import db\n"
            "from bulwark.jobs import runs\n"
            "with app.app_context(): runs.add('gone', (), {}); db.session.commit()"
        )
    whole.sql("DELETE FROM background_runs")


def test_lost_emails_raise_an_alert(whole: Whole, expect_alert: ExpectAlert) -> None:
    with expect_alert("MailDropped"):
        whole.sql(
            "INSERT INTO outgoing_mail"
            " (id, sealed_message, created_at, due_at, attempts)"
            " SELECT gen_random_uuid(), 'sealed by nobody', now(), now(), 0"
            " FROM generate_series(1, 8)"
        )
        whole.python(
            "from wsgi import app; from bulwark.mail import outbox\n"
            "with app.app_context(): outbox.deliver_due()"
        )


def test_a_key_that_is_over_a_year_old_raises_a_ticket(
    whole: Whole, in_time: ExpectAlert
) -> None:
    with in_time("KeyOld"):
        whole.python(
            "from datetime import timedelta; from wsgi import app\n"
            "from bulwark.database import utcnow; from bulwark.ops.keys import ages\n"
            "with app.app_context():\n"
            "    ages.record()\n"
            "    long_ago = (utcnow() - timedelta(days=401)).isoformat()\n"
            "    ages.queue.put(ages.STORED, dict.fromkeys(ages._stored(), long_ago))"
        )


def test_a_backup_that_can_not_be_restored_raises_a_ticket(
    whole: Whole, in_time: ExpectAlert
) -> None:
    folder = whole.folder / "drills"
    whole.flask("backup", str(folder))
    (backup,) = folder.iterdir()
    content = backup.read_bytes()
    backup.write_bytes(content[:-10])
    with in_time("RestoreDrillFailed"), pytest.raises(AssertionError, match="damaged"):
        whole.flask("restore-drill", str(folder))
    backup.write_bytes(content)
    whole.flask("restore-drill", str(folder))
    eventually(lambda: whole.value("restore_drill_failed") == 0)
    assert whole.value("restore_drill_last_timestamp_seconds") > 0
    assert whole.value("restore_drill_duration_seconds") > 0


def test_drills_that_no_longer_run_raise_a_ticket(
    whole: Whole, in_time: ExpectAlert
) -> None:
    with in_time("RestoreDrillOverdue"):
        whole.python(
            "from datetime import timedelta; from wsgi import app\n"
            "from bulwark.database import utcnow; from bulwark.jobs import queue\n"
            "from bulwark.ops.backups import drill_results\n"
            "with app.app_context():\n"
            "    long_ago = (utcnow() - timedelta(days=41)).isoformat().encode()\n"
            "    queue.storage.put_data(drill_results.PASSED.encode(), long_ago)"
        )


def test_a_truncated_trail_pages_the_operator(
    whole: Whole, expect_alert: ExpectAlert
) -> None:
    # The last one here, because the trail stays broken.
    whole.person("watched@bulwark-tests.net")
    now = time.time()
    eventually(lambda: whole.value("audit_checked_timestamp_seconds") > now)
    tables = ("audit_chain", "security_events")
    unlocked = [f"ALTER TABLE {table} DISABLE TRIGGER USER" for table in tables]
    with expect_alert("AuditChainBroken"):
        whole.sql(
            *unlocked,
            "DELETE FROM security_events WHERE id IN"
            " (SELECT event_id FROM audit_chain ORDER BY position DESC LIMIT 2)",
            "DELETE FROM audit_chain WHERE event_id NOT IN"
            " (SELECT id FROM security_events)",
        )
