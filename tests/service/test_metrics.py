"""Metrics of a real service: true for all workers, and what attacks set off."""

import http.client
import os
import re
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.support.chain import METRICS, Chain, Shop
from tests.support.clients import Browser
from tests.support.servers import eventually
from tests.support.visitor import PASSWORD
from tests.support.watched import Watched, copy_service

# Nobody serves a certificate here, and Prometheus itself says who is up.
NOT_HERE = {
    "certificate_life_left_ratio",
    "certificate_expires_timestamp_seconds",
    "up",
}


needs_chain = pytest.mark.needs("prometheus", "prometheus-alertmanager")


@pytest.fixture(scope="module")
def watched(
    template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("watched")
    copy_service(tmp_path_factory, template, folder)
    with Watched(folder).running() as service:
        yield service


def test_each_metric_of_rules_and_dashboards_is_exposed(watched: Watched) -> None:
    visitor = Browser(watched)
    visitor.ask("/login")
    exposed = {name for name, _, _ in watched.samples()}
    unseen = {"log_lines_dropped_total"}  # has no sample until one was
    assert METRICS - NOT_HERE - unseen <= exposed


def test_all_workers_are_counted_and_a_killed_one_loses_nothing(
    watched: Watched,
) -> None:
    def seen() -> float:
        return watched.value("http_requests_total", 'route="/healthz"', 'status="200"')

    before, stop = seen(), threading.Event()
    answered, failed = [0] * 8, [0] * 8

    def visit(number: int) -> None:
        browser = Browser(watched)
        while not stop.is_set():
            try:
                succeeded = browser.ask("/healthz").status == 200
            except (OSError, http.client.HTTPException):
                succeeded = False
            (answered if succeeded else failed)[number] += 1

    threads = [threading.Thread(target=visit, args=[n]) for n in range(len(answered))]
    for thread in threads:
        thread.start()
    try:
        eventually(lambda: sum(answered) > 100)
        killed, *others = workers(watched)
        os.kill(killed, signal.SIGKILL)
        eventually(lambda: set(workers(watched)) - {killed, *others})
        enough = sum(answered) + 100
        eventually(lambda: sum(answered) > enough)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    # A killed worker may have counted requests that it could no longer answer.
    assert 0 <= seen() - before - sum(answered) <= sum(failed)


def test_the_metrics_can_be_stopped_while_they_are_asked_for(watched: Watched) -> None:
    over = threading.Event()

    def scrape() -> None:
        while not over.is_set():
            with suppress(OSError, http.client.HTTPException):
                watched.value("build_info")

    with ThreadPoolExecutor() as pool:
        try:
            asking = [pool.submit(scrape) for _ in range(2)]
            with watched.without("metrics"):
                assert watched.parts["metrics"].returncode == 0
        finally:
            over.set()
    assert [one.result() for one in asking] == [None, None]
    assert watched.value("build_info")


def workers(watched: Watched) -> list[int]:
    output = (watched.folder / "web").read_text()
    output += (watched.folder / "web.err").read_text()
    pids = map(int, re.findall(r"Booting worker with pid: (\d+)", output))
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


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


@needs_chain
def test_credential_stuffing_from_many_networks_pages_the_operator(
    watched: Watched, chain: Chain, record_property: Any
) -> None:
    begun = time.monotonic()
    for number in range(16):
        guess(watched, f"stolen{number}@bulwark-tests.net")
    chain.wait_for_alert("CredentialStuffing")
    record_property("seconds from attack to alert", time.monotonic() - begun)


@needs_chain
def test_a_new_administrator_raises_an_alert(watched: Watched, chain: Chain) -> None:
    eventually(lambda: chain.knows("administrators"))
    email = "eve@bulwark-tests.net"
    watched.person(email)
    watched.flask("accounts", "grant", email, "administrator")
    chain.wait_for_alert("NewAdministrator")


def test_no_secret_is_in_logs_metrics_emails_or_the_database(
    watched: Watched,
) -> None:
    canary, email = "turquoise-canary-31415", "careless@bulwark-tests.net"
    person = watched.person(email)
    stranger = Browser(watched)
    watched.mailbox.messages.clear()
    stranger.fill_in("/reset", email=email)
    link = watched.link_to(email)
    for typed in (email, canary, f"{canary}@bulwark-tests.net"):
        stranger.fill_in("/login", email=typed, password=canary)
        stranger.send("/login", email=typed, password=canary)
    stranger.ask(f"/?token={canary}", Authorization=f"Bearer {canary}")
    stranger.ask(f"/reset/{canary}", X_Api_Key=canary)
    stranger.ask("/login", "POST", f"password={canary}")
    person.fill_in("/change", password=PASSWORD, new_password=f"{canary}-as-new")
    secrets = [canary, PASSWORD, link.removeprefix("/reset/"), *person.cookies.values()]
    settings = (watched.folder / "service/.env.production").read_text()
    secrets += re.findall(r"(?m)^APP_(?:SECRET_KEY|PASSWORD_PEPPER)=(.+)$", settings)
    database = watched.folder / "service/instance/production.db"
    with closing(sqlite3.connect(database)) as connection:
        places = {"database": "\n".join(connection.iterdump())}
    for log in ("web", "worker", "metrics"):
        places[log] = (watched.folder / log).read_text()
        places[log] += (watched.folder / f"{log}.err").read_text()
    places["metrics"] += "\n".join(map(str, watched.samples()))
    messages = [str(message) for message in watched.mailbox.messages]
    places["emails"] = "".join(messages).replace(link, "")
    assert len(places["web"]) > 10_000
    found = [
        (s, name) for s in secrets for name, output in places.items() if s in output
    ]
    assert not found
