"""Alerts: each is set off by the real thing, and an ordinary hour sets off none.

The rules are those that are delivered; only their hours are minutes. Two more, of a
list of stolen passwords and of a new administrator, are in test_metrics.py.
"""

import os
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import run
from tests.edge import DOMAIN
from tests.servers import Postgres, eventually, free_port, running, wait_for_port
from tests.test_monitoring import Chain, Shop, alerts
from tests.test_races import PASSWORD, Answer, Browser, add_app
from tests.traffic import alarms, watched_traffic
from tests.watched import Watched, hasten, make_service

pytestmark = pytest.mark.needs("prometheus", "prometheus-alertmanager", "nginx")
SPEED = 60  # an hour of the rules is a minute here
RUSH = 3600  # and for what takes a night, a second
PAUSED = 15.2  # seconds until five more codes are taken: WINDOW in guessing.py
# Seconds of one request: a machine that has so much else to do stands still for minutes
# of an hour that is a minute, which no ordinary hour does.
STANDSTILL = 2

# What a team may get wrong.
VIEWS = '''
import time

from flask_login import login_user
from sqlalchemy import select

from app.models import User
from bulwark.database import db

KEPT = []


@blueprint.get("/fails")
@public
def fails():
    raise RuntimeError


@blueprint.get("/slow")
@public
def slow():
    time.sleep(2)
    return "done"


@blueprint.get("/keeps")
@public
def keeps():
    """Take connections and give none back; leave a few for the others."""
    if len(KEPT) < 13:
        KEPT.append(db.engine.connect())
    return "kept"


@blueprint.get("/back-door/<email>")
@public
def back_door(email):
    """Sign somebody in, past what records it."""
    login_user(db.session.scalars(select(User).where(User.email == email)).one())
    return "in"
'''
INVITE = """
import sys
from app import create_app
from bulwark.database import db
from bulwark.identity import accounts

with create_app().app_context():
    for email in sys.argv[1:]:
        accounts.invite(email, by=None, reason="works here")
    db.session.commit()
"""

Told = Callable[..., AbstractContextManager[None]]


@contextmanager
def watching(service: Watched, folder: Path, speed: int = SPEED) -> Iterator[Chain]:
    """Watch a service with rules that are so many times as fast."""
    shop = Shop()
    folder.mkdir()
    with (
        shop.open() as inbox,
        Chain(folder, shop, inbox, service.port, speed).running() as chain,
    ):
        eventually(lambda: chain.knows("web_up == 1"))
        yield chain


def firing(name: str, **labels: str) -> str:
    """Return what to ask Prometheus to learn whether an alert fires."""
    wanted = {"alertname": name, "alertstate": "firing", **labels}
    chosen = ",".join(f'{label}="{value}"' for label, value in wanted.items())
    return f"ALERTS{{{chosen}}}"


def telling(chain: Chain, record_property: Callable[[str, Any], None]) -> Told:
    """Return what expects that somebody is told of what a block does."""

    @contextmanager
    def told(name: str, **labels: str) -> Iterator[None]:
        eventually(lambda: not chain.knows(firing(name, **labels)))
        begun = time.time()
        yield
        chain.told(name, begun, **labels)
        seconds = round(time.time() - begun, 1)
        record_property(f"seconds from attack to {name}", seconds)

    return told


def while_it_lasts(
    outage: AbstractContextManager[None], told: AbstractContextManager[None]
) -> None:
    """Expect that somebody is told of an outage before it ends."""
    with ExitStack() as end, told:
        end.enter_context(outage)


def several(browser: Browser, path: str, times: int) -> None:
    for _ in range(times):
        browser.ask(path)


@contextmanager
def visited(service: Watched, path: str, pause: float = 0) -> Iterator[None]:
    """Let somebody ask for a page again and again while the block lasts."""
    stop, visitor = threading.Event(), Browser(service)

    def visit() -> None:
        while not stop.wait(pause):
            visitor.ask(path)

    thread = threading.Thread(target=visit)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


# --- Attacks and mistakes -------------------------------------------------------------


@pytest.fixture(scope="module")
def service(
    template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("alerts")
    made = make_service(template, folder)
    with (made / "app/views.py").open("a") as file:
        file.write(VIEWS)
    with Watched(folder, proxy=True).running() as service:
        yield service


@pytest.fixture(scope="module")
def chain(service: Watched) -> Iterator[Chain]:
    with watching(service, service.folder / "watching") as chain:
        yield chain


@pytest.fixture
def told(chain: Chain, record_property: Callable[[str, Any], None]) -> Told:
    return telling(chain, record_property)


def test_wrong_passwords_from_one_network_are_told(
    service: Watched, told: Told
) -> None:
    guesser = Browser(service)
    with told("BruteForce"):
        for number in range(30):
            email = f"nobody{number % 5}@bulwark-tests.net"
            guesser.fill_in("/login", email=email, password=f"guess number {number}")


def test_one_password_tried_on_many_accounts_wakes_somebody(
    service: Watched, told: Told
) -> None:
    people = [f"target{number}@bulwark-tests.net" for number in range(18)]
    with service.command("python", "-c", INVITE, *people, log="invite") as done:
        assert done.wait() == 0, (service.folder / "invite.err").read_text()
    guesser = Browser(service)
    with told("PasswordSpraying"):
        for email in people:
            guesser.fill_in("/login", email=email, password="Autumn2026!")


def test_somebody_who_looks_for_a_way_to_administer_is_told(
    service: Watched, told: Told
) -> None:
    person = service.person("curious@bulwark-tests.net")
    with told("RefusalBurst"):
        several(person, "/admin/users", 45)


def test_a_sign_in_past_the_record_wakes_somebody(service: Watched, told: Told) -> None:
    email = "owner@bulwark-tests.net"
    service.person(email)
    with told("SignInWithoutEvent"):
        assert Browser(service).ask(f"/back-door/{email}").body == "in"


def test_a_page_that_fails_is_told_slowly_when_few_ask_for_it_and_fast_when_many_do(
    service: Watched, told: Told
) -> None:
    visitor = Browser(service)
    with told("ErrorBudgetBurnSlow"):
        for _ in range(12):
            several(visitor, "/static/app.css", 250)
            visitor.ask("/fails")
    with told("ErrorBudgetBurnFast"):
        several(visitor, "/fails", 60)


def test_a_slow_page_is_told(service: Watched, told: Told) -> None:
    with (
        visited(service, "/static/app.css", pause=0.05),
        visited(service, "/slow"),
        visited(service, "/slow"),
        visited(service, "/slow"),
        visited(service, "/slow"),
        told("Saturation", kind="latency"),
    ):
        pass


def test_connections_that_nobody_gives_back_are_told(
    service: Watched, told: Told
) -> None:
    visitor = Browser(service)
    with told("Saturation", kind="pool"):
        several(visitor, "/keeps", 60)


# --- What the service is made of ------------------------------------------------------


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
    made = make_service(template, folder, database="postgresql")
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
def noticed(beside: Chain, record_property: Callable[[str, Any], None]) -> Told:
    return telling(beside, record_property)


@pytest.fixture(scope="module")
def rushing(whole: Whole) -> Iterator[Chain]:
    with watching(whole, whole.folder / "rushing", RUSH) as chain:
        yield chain


@pytest.fixture
def in_time(rushing: Chain, record_property: Callable[[str, Any], None]) -> Told:
    return telling(rushing, record_property)


needs_all = pytest.mark.needs("postgresql", "redis-server")


@needs_all
def test_wrong_codes_again_and_again_wake_somebody(
    whole: Whole, beside: Chain, noticed: Told
) -> None:
    email = "codes@bulwark-tests.net"
    add_app(whole.person(email))
    guesses = [code_form(whole, email) for _ in range(6)]
    with noticed("SecondFactorGuessing"):
        for guess in guesses:
            begun = time.monotonic()
            assert [guess().status for _ in range(6)] == [200] * 5 + [429]
            time.sleep(max(0, PAUSED - (time.monotonic() - begun)))
            if beside.shop.heard("SecondFactorGuessing"):
                break


def code_form(service: Watched, email: str) -> Callable[[], Answer]:
    """Give the right password; return what then sends a wrong code."""
    guesser = Browser(service)
    guesser.fill_in("/login", email=email, password=PASSWORD)
    return guesser.prepare("/login/code", code="000000")


@needs_all
def test_a_trail_that_nobody_checks_is_told(whole: Whole, noticed: Told) -> None:
    jobs = "from wsgi import app; from bulwark import audit\n"
    jobs += "for job in (audit.check, audit.check_new): job."
    with noticed("AuditCheckStale"):
        whole.python(f"{jobs}revoke()")
    whole.python(f"{jobs}restore()")


@needs_all
def test_a_worker_that_is_gone_wakes_somebody(whole: Whole, noticed: Told) -> None:
    while_it_lasts(whole.without("worker"), noticed("WorkerGone"))


@needs_all
def test_a_web_that_is_gone_wakes_somebody_although_the_metrics_are_there(
    whole: Whole, beside: Chain, noticed: Told
) -> None:
    while_it_lasts(whole.without("web"), noticed("WebDown"))
    assert not beside.knows("up == 0")


@needs_all
def test_metrics_that_are_gone_wake_somebody(whole: Whole, noticed: Told) -> None:
    while_it_lasts(whole.without("metrics"), noticed("TargetDown"))


@needs_all
def test_a_database_that_is_gone_wakes_somebody(whole: Whole, noticed: Told) -> None:
    while_it_lasts(whole.postgres.away(), noticed("DatabaseDown"))


@needs_all
def test_a_redis_that_is_gone_is_told(whole: Whole, noticed: Told) -> None:
    while_it_lasts(whole.without("redis"), noticed("LimiterDegraded"))


@needs_all
def test_mail_that_does_not_leave_is_told(whole: Whole, noticed: Told) -> None:
    with whole.mailbox.away(), noticed("MailQueueStuck"):
        Browser(whole).fill_in("/register", email="waits@bulwark-tests.net")


@needs_all
def test_a_certificate_that_is_not_renewed_is_told_and_at_last_wakes_somebody(
    whole: Whole, in_time: Told
) -> None:
    assert whole.nginx
    with in_time("CertificateQuarterLeft"):
        whole.nginx.serve(DOMAIN, left=0.24)
    with in_time("CertificateExpiring"):
        whole.nginx.serve(DOMAIN, left=0.09)
    whole.nginx.serve(DOMAIN, left=0.9)


@needs_all
def test_a_night_without_a_backup_is_told(whole: Whole, in_time: Told) -> None:
    whole.flask("backup", str(whole.folder / "backups"))
    with in_time("BackupFailing"):
        pass


@needs_all
def test_a_disk_that_fills_is_told_and_at_last_wakes_somebody(
    whole: Whole, in_time: Told
) -> None:
    if not whole.instance.is_mount():
        pytest.skip("may not mount a disk here")
    with in_time("DiskFilling", severity="ticket"):
        whole.fill(left=0.08)
    with in_time("DiskFilling", severity="page"):
        whole.fill(left=0.02)
    (whole.instance / "growing").unlink()


@needs_all
def test_a_trail_that_was_cut_short_in_the_database_wakes_somebody(
    whole: Whole, noticed: Told
) -> None:
    # The last one here, for it stays broken, and who knows that is told no less.
    whole.person("watched@bulwark-tests.net")
    now = time.time()
    eventually(lambda: whole.value("audit_checked_timestamp_seconds") > now)
    tables = ("audit_chain", "security_events")
    unlocked = [f"ALTER TABLE {table} DISABLE TRIGGER USER" for table in tables]
    with noticed("AuditChainBroken"):
        whole.sql(
            *unlocked,
            "DELETE FROM security_events WHERE id IN"
            " (SELECT event_id FROM audit_chain ORDER BY position DESC LIMIT 2)",
            "DELETE FROM audit_chain WHERE event_id NOT IN"
            " (SELECT id FROM security_events)",
        )


def test_each_alert_is_set_off_by_the_real_thing() -> None:
    files = [Path(__file__), Path(__file__).with_name("test_metrics.py")]
    said = "".join(path.read_text() for path in files)
    proven = re.findall(r'(?:told|noticed|in_time)\(\s*"(\w+)"', said)
    assert set(proven) == {alert["alert"] for alert in alerts()}


# --- An ordinary hour -----------------------------------------------------------------


def test_an_hour_of_ordinary_traffic_sets_off_no_alert(
    template: Path, tmp_path: Path, record_property: Callable[[str, Any], None]
) -> None:
    hasten(make_service(template, tmp_path), SPEED)
    service = Watched(tmp_path, proxy=True)
    with watched_traffic(service, tmp_path, SPEED, people=8, with_codes=2) as (
        traffic,
        chain,
    ):
        hour = 3600 / SPEED
        for _ in range(3):
            traffic.go_on(hour, pause=0.5)
            if traffic.slowest < STANDSTILL:
                break
        record_property("requests", traffic.requests)
        # One is pending for a moment while a sign-in is counted and not yet recorded.
        assert alarms(chain, hour, "firing") == set()
