"""A service under gunicorn, and clients that each have an address of their own."""

import base64
import hmac
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from copier import run_copy

from tests.support.edge import ENVIRONMENT
from tests.support.environments import lend_packages
from tests.support.servers import Mailbox, eventually, running
from tests.support.visitor import DOMAIN, PASSWORD, Visitor


class Service:
    """A service under gunicorn; each browser comes from an address of its own."""

    def __init__(self, folder: Path, database: str | None) -> None:
        self.folder, self.mailbox = folder, Mailbox()
        self.socket = folder / "web.sock"
        self.environment = ENVIRONMENT | {"HOME": str(folder)}
        with (folder / "service/.env.production").open("a") as file:
            file.write(f"APP_MAIL_URL=smtp://127.0.0.1:{self.mailbox.port}\n")
            if database:
                file.write(f"APP_DATABASE_URL={database}\n")

    def command(self, *words: str, log: str) -> Any:
        program, *arguments = words
        return running(
            self.folder / "service/.venv/bin" / program,
            *arguments,
            log=self.folder / log,
            cwd=self.folder / "service",
            env=self.environment,
        )

    def person(self, email: str) -> "Browser":
        """Return the browser of a user who created an account and signed in."""
        browser = Browser(self)
        browser.fill_in("/register", email=email)
        browser.fill_in(self.link_to(email), password=PASSWORD)
        assert browser.sign_in(email).status == 302
        return browser

    def link_to(self, email: str) -> str:
        return eventually(lambda: self.mailbox.link_to(email))

    def failures(self) -> list[str]:
        """Return the lines of requests that ended in a fault of the service."""
        lines = (self.folder / "web").read_text().splitlines()
        return [line for line in lines if '"status": 500' in line]


class Browser(Visitor):
    """Comes through the proxy from an address that no other browser has."""

    count = 0

    def __init__(self, service: Service) -> None:
        Browser.count += 1
        self.address = f"198.51.{Browser.count // 250}.{Browser.count % 250 + 1}"
        super().__init__(X_Forwarded_For=self.address, X_Forwarded_Proto="https")
        self.service = service

    def connect(self, port: int = 443) -> socket.socket:
        """Connect to gunicorn, as the proxy does."""
        stream = socket.socket(socket.AF_UNIX)
        stream.settimeout(60)
        stream.connect(str(self.service.socket))
        return stream


@contextmanager
def served(
    template: Path,
    factory: pytest.TempPathFactory,
    kind: str,
    database: str | None,
    views: str = "",
) -> Iterator[Service]:
    """Serve in production, with views of a team that are added to those of the copy."""
    folder = factory.mktemp(f"served-{kind}")
    answers = {"domain": DOMAIN, "database": kind}
    made = folder / "service"
    run_copy(str(template), made, answers, defaults=True, unsafe=True, quiet=True)
    lend_packages(made, factory, "--no-dev")
    with (made / "app/views.py").open("a") as file:
        file.write(views)
    service = Service(folder, database)
    with service.mailbox.running():
        with service.command(
            "flask", "--app", "wsgi", "prepare", log="prepare"
        ) as done:
            assert done.wait() == 0, (folder / "prepare.err").read_text()
        with (
            service.command("gunicorn", f"--bind=unix:{service.socket}", log="web"),
            service.command("flask", "--app", "wsgi", "worker", log="worker"),
        ):
            eventually(service.socket.exists)
            yield service


def code_of(seed: str, moment: float) -> str:
    """Return the code that an authenticator app shows (RFC 6238, 4.2)."""
    # A page shows the seed in groups, without padding.
    key = seed.replace(" ", "").replace("-", "").upper()
    secret = base64.b32decode(key + "=" * (-len(key) % 8))
    digest = hmac.digest(secret, struct.pack(">Q", int(moment) // 30), "sha1")
    (number,) = struct.unpack_from(">I", digest, digest[-1] & 15)
    return f"{(number & 0x7FFFFFFF) % 1_000_000:06}"


def add_app(person: Browser) -> str:
    """Give a user an authenticator app; return its seed."""
    begun = person.send("/account/authenticator", setup="authenticator").values
    seed: str = begun["tf_authr_b32key"]
    path = f"/account/authenticator/{begun['tf_state_token']}"
    # The code of the step before leaves this step's unused.
    code = code_of(seed, time.time() - 30)
    assert person.send(path, code=code).status == 200
    return seed
