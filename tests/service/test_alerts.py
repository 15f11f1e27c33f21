"""Alerts: attacks and mistakes set them off, and an ordinary hour sets off none.

The rules are those that are delivered; only their hours are minutes. Those of what the
service is made of are in test_alerts_of_parts.py. Two more, of a list of stolen
passwords and of a new administrator, are in test_metrics.py.
"""

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.alerting import SPEED, ExpectAlert, alert_expectation, watching
from tests.support.chain import Chain, alerts
from tests.support.clients import Browser
from tests.support.traffic import alarms, watched_traffic
from tests.support.watched import Watched, copy_service, hasten

pytestmark = pytest.mark.needs("prometheus", "prometheus-alertmanager", "nginx")
# Seconds of one request: a machine that has so much else to do stands still for minutes
# of an hour that is a minute, which no ordinary hour does.
STANDSTILL, HOURS = 2, 3

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
from bulwark.identity import invitations

with create_app().app_context():
    for email in sys.argv[1:]:
        invitations.invite(email, by=None, reason="works here")
    db.session.commit()
"""


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
    made = copy_service(tmp_path_factory, template, folder)
    with (made / "app/views.py").open("a") as file:
        file.write(VIEWS)
    with Watched(folder, proxy=True).running() as service:
        yield service


@pytest.fixture(scope="module")
def chain(service: Watched) -> Iterator[Chain]:
    with watching(service, service.folder / "watching") as chain:
        yield chain


@pytest.fixture
def expect_alert(
    chain: Chain, record_property: Callable[[str, Any], None]
) -> ExpectAlert:
    return alert_expectation(chain, record_property)


def test_wrong_passwords_from_one_network_raise_an_alert(
    service: Watched, expect_alert: ExpectAlert
) -> None:
    guesser = Browser(service)
    with expect_alert("BruteForce"):
        for number in range(30):
            email = f"nobody{number % 5}@bulwark-tests.net"
            guesser.fill_in("/login", email=email, password=f"guess number {number}")


def test_one_password_tried_on_many_accounts_pages_the_operator(
    service: Watched, expect_alert: ExpectAlert
) -> None:
    people = [f"target{number}@bulwark-tests.net" for number in range(18)]
    with service.command("python", "-c", INVITE, *people, log="invite") as done:
        assert done.wait() == 0, (service.folder / "invite.err").read_text()
    guesser = Browser(service)
    with expect_alert("PasswordSpraying"):
        for email in people:
            guesser.fill_in("/login", email=email, password="Autumn2026!")


def test_probing_for_administration_raises_an_alert(
    service: Watched, expect_alert: ExpectAlert
) -> None:
    person = service.person("curious@bulwark-tests.net")
    with expect_alert("RefusalBurst"):
        several(person, "/admin/users", 45)


def test_a_sign_in_without_its_event_pages_the_operator(
    service: Watched, expect_alert: ExpectAlert
) -> None:
    email = "owner@bulwark-tests.net"
    service.person(email)
    with expect_alert("SignInWithoutEvent"):
        assert Browser(service).ask(f"/back-door/{email}").body == "in"


def test_a_failing_page_raises_a_ticket_for_few_requests_and_a_page_for_many(
    service: Watched, expect_alert: ExpectAlert
) -> None:
    visitor = Browser(service)
    with expect_alert("ErrorBudgetBurnSlow"):
        for _ in range(12):
            several(visitor, "/static/app.css", 250)
            visitor.ask("/fails")
    with expect_alert("ErrorBudgetBurnFast"):
        several(visitor, "/fails", 60)


def test_a_slow_page_raises_an_alert(
    service: Watched, expect_alert: ExpectAlert
) -> None:
    with (
        visited(service, "/static/app.css", pause=0.05),
        visited(service, "/slow"),
        visited(service, "/slow"),
        visited(service, "/slow"),
        visited(service, "/slow"),
        expect_alert("Saturation", kind="latency"),
    ):
        pass


def test_connections_that_are_not_returned_raise_an_alert(
    service: Watched, expect_alert: ExpectAlert
) -> None:
    visitor = Browser(service)
    with expect_alert("Saturation", kind="pool"):
        several(visitor, "/keeps", 60)


def test_each_alert_is_set_off_by_the_real_thing() -> None:
    names = ("test_alerts", "test_alerts_of_parts", "test_metrics")
    files = [Path(__file__).with_name(f"{name}.py") for name in names]
    output = "".join(path.read_text() for path in files)
    proven = re.findall(
        r'(?:wait_for_alert|expect_alert|in_time|alert_follows)\(\s*"(\w+)"', output
    )
    assert set(proven) == {alert["alert"] for alert in alerts()}


# --- An ordinary hour -----------------------------------------------------------------


@pytest.mark.quiet
def test_an_hour_of_ordinary_traffic_sets_off_no_alert(
    template: Path,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    record_property: Callable[[str, Any], None],
) -> None:
    hasten(copy_service(tmp_path_factory, template, tmp_path), SPEED)
    service = Watched(tmp_path, proxy=True)
    with watched_traffic(service, tmp_path, SPEED, people=8, with_codes=2) as (
        traffic,
        chain,
    ):
        hour = 3600 / SPEED
        for _ in range(HOURS):
            traffic.go_on(hour, pause=0.5)
            if traffic.slowest < STANDSTILL:
                break
        record_property("requests", traffic.requests)
        # One is pending for a moment while a sign-in is counted and not yet recorded.
        assert alarms(chain, hour, "firing") == set()
