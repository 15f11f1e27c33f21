"""Races: what may happen once happens once, also when many ask at the same moment."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from tests.support.clients import Browser, Service, add_app, code_of, served
from tests.support.servers import Postgres
from tests.support.visitor import PASSWORD

AT_ONCE = 20

T = TypeVar("T")


def at_once(*actions: Callable[[], T]) -> list[T]:
    """Do all of it at the same moment; return what came of each."""
    start, done = threading.Barrier(len(actions)), list[T]()

    def act(action: Callable[[], T]) -> None:
        start.wait()
        done.append(action())

    threads = [threading.Thread(target=act, args=[action]) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == len(actions)
    return done


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def service(
    request: pytest.FixtureRequest,
    template: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Service]:
    """Return a service in production, on each database."""
    database = None
    if request.param == "postgresql":
        postgres: Postgres = request.getfixturevalue("postgres")
        database = postgres.database()
    with served(template, tmp_path_factory, request.param, database) as service:
        yield service
    assert service.failures() == []


def half_signed_in(service: Service, email: str) -> list[Browser]:
    """Return browsers in which somebody gave the password and owes the second step."""
    browsers = [Browser(service) for _ in range(AT_ONCE)]
    for browser in browsers:
        answer = browser.fill_in("/login", email=email, password=PASSWORD)
        assert answer.location.startswith("/login/code")
    return browsers


@pytest.mark.needs("postgresql")
def test_one_code_of_an_authenticator_app_signs_in_once(service: Service) -> None:
    email = "totp@bulwark-tests.net"
    seed = add_app(service.person(email))
    browsers = half_signed_in(service, email)
    code = code_of(seed, time.time())
    at_once(*(b.prepare("/login/code", code=code) for b in browsers))
    assert sum(b.is_signed_in() for b in browsers) == 1


@pytest.mark.needs("postgresql")
def test_one_recovery_code_signs_in_once(service: Service) -> None:
    email = "codes@bulwark-tests.net"
    person = service.person(email)
    add_app(person)
    made = person.send("/account/recovery-codes", generate_new_codes=True)
    code = made.values["recovery_codes"][0]
    browsers = half_signed_in(service, email)
    at_once(*(b.prepare("/login/recovery", code=code) for b in browsers))
    assert sum(b.is_signed_in() for b in browsers) == 1


@pytest.mark.needs("postgresql")
def test_one_reset_link_sets_one_password(service: Service) -> None:
    email = "reset@bulwark-tests.net"
    service.person(email)
    service.mailbox.messages.clear()
    Browser(service).fill_in("/reset", email=email)
    link = service.link_to(email)
    browsers = [Browser(service) for _ in range(AT_ONCE)]
    forms = [
        browser.prepare(link, password=f"{PASSWORD} number {number}")
        for number, browser in enumerate(browsers)
    ]
    answers = at_once(*forms)
    assert [a.location for a in answers].count("/login") == 1


@pytest.mark.needs("postgresql")
def test_fifty_sign_ups_of_one_address_make_one_account(service: Service) -> None:
    email = "fifty@bulwark-tests.net"
    browsers = [Browser(service) for _ in range(50)]
    answers = at_once(*(b.prepare("/register", email=email) for b in browsers))
    assert {answer.status for answer in answers} == {200}
    link = service.link_to(email)
    forms = [b.prepare(link, password=PASSWORD) for b in browsers[:AT_ONCE]]
    locations = [answer.location for answer in at_once(*forms)]
    assert locations.count("/login") == 1
