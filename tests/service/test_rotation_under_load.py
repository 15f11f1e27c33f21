"""Each key is rotated while the service is used: nothing fails, all stay signed in."""

import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import pytest

from tests.support.clients import Browser, Service, add_app, code_of, served
from tests.support.edge import ENVIRONMENT
from tests.support.servers import Postgres, eventually
from tests.support.visitor import PASSWORD

VISITORS = 4
USERS = 200  # with an authenticator app, whose seeds are encrypted
ADD_USERS = f"""
from app import create_app
from bulwark.database import db
with create_app().app_context() as context:
    security = context.app.extensions["security"]
    for n in range({USERS}):
        user = security.datastore.create_user(email=f"{{n}}@example.org", password=None)
        db.session.flush()
        user.tf_totp_secret = security.totp_factory.generate_totp_secret()
    db.session.commit()
"""


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
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


class Visitors:
    """Users who are signed in, and request a page all the time."""

    def __init__(self, service: Service) -> None:
        self.browsers = [
            service.person(f"visitor{n}@example.org") for n in range(VISITORS)
        ]
        self.answers: list[int] = []
        self.faults: list[str] = []
        self._over = threading.Event()

    def __enter__(self) -> Self:
        self._threads = [
            threading.Thread(target=self._visit, args=[b]) for b in self.browsers
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _visit(self, browser: Browser) -> None:
        while not self._over.is_set():
            try:
                self.answers.append(browser.ask("/account").status)
            except OSError as error:
                self.faults.append(repr(error))
            time.sleep(0.1)


class Rolling:
    """Replaces the web processes one after another; both serve for a while."""

    def __init__(self, service: Service, stack: ExitStack) -> None:
        self.service, self.stack, self.count = service, stack, 0

    def roll(self) -> None:
        """Start new processes; half of the requests go to the former ones at first."""
        self.count += 1
        former, new = self.service.socket, self.service.folder / f"{self.count}.sock"
        log = f"web{self.count}"
        command = self.service.command("gunicorn", f"--bind=unix:{new}", log=log)
        self.stack.enter_context(command)
        eventually(new.exists)
        until = time.monotonic() + 1
        while time.monotonic() < until:
            self.service.socket = random.choice([former, new])
            time.sleep(0.02)
        self.service.socket = new


def secrets(service: Service, *words: str) -> None:
    command = [sys.executable, "bin/secrets", "rotate", *words]
    subprocess.run(command, cwd=service.folder / "service", check=True)


def flask(service: Service, *words: str) -> subprocess.Popen[str]:
    folder = service.folder / "service"
    return subprocess.Popen(
        [folder / ".venv/bin/flask", "--app", "wsgi", *words],
        cwd=folder,
        env=ENVIRONMENT | {"HOME": str(service.folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def renew_all_values(service: Service) -> str:
    """Rotate, with kills at any moment; return the output of the run that finished."""
    for seconds in (2.0, 3.0):
        process = flask(service, "keys", "rotate", "encryption")
        time.sleep(seconds)
        process.kill()
        process.communicate()
    process = flask(service, "keys", "rotate", "encryption")
    said, _ = process.communicate()
    assert process.returncode == 0, said
    return said


def sign_in(service: Service, email: str, code: str = "") -> None:
    """Sign in with a password and, if there is one, a code."""
    browser = Browser(service)
    answer = browser.fill_in("/login", email=email, password=PASSWORD)
    if code:
        assert answer.location.startswith("/login/code"), email
        browser.fill_in("/login/code", code=code)
    assert browser.is_signed_in(), email


def test_each_key_is_rotated_and_nobody_notices(
    service: Service, record_testsuite_property: Callable[[str, object], None]
) -> None:
    ada = service.person("ada@example.org")
    seed = add_app(ada)
    folder = service.folder / "service"
    subprocess.run(
        [folder / ".venv/bin/python", "-c", ADD_USERS],
        cwd=folder,
        env=ENVIRONMENT | {"HOME": str(service.folder)},
        check=True,
    )
    with ExitStack() as stack, Visitors(service) as visitors:
        web = Rolling(service, stack)
        for name in ("encryption", "signing", "pepper"):
            for step in ("add", "use", "remove"):
                if (name, step) == ("encryption", "remove"):
                    assert "Nothing needs key 1" in renew_all_values(service)
                if (name, step) == ("pepper", "remove"):
                    # Whoever signs in before the former pepper goes gets a new hash.
                    sign_in(service, "visitor0@example.org")
                    sign_in(service, "ada@example.org", code_of(seed, time.time()))
                secrets(service, name, step)
                send = Browser(service).prepare("/reset", email="no@example.org")
                web.roll()
                last = step == "remove"
                assert send().status == 200 or last, (name, step)
        signed_in = [browser.is_signed_in() for browser in visitors.browsers]
        answers, faults = list(visitors.answers), list(visitors.faults)
        # With the newest keys only: the seed, the password and the chain.
        sign_in(service, "visitor0@example.org")
        sign_in(service, "ada@example.org", code_of(seed, time.time() + 30))
        process = flask(service, "audit", "verify")
        assert "is intact" in process.communicate()[0]
    record_testsuite_property("requests", len(answers))
    assert signed_in == [True] * VISITORS
    assert set(answers) == {200}
    assert faults == []
    assert len(answers) > 100
