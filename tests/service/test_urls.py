"""Passwords with special characters in URLs, on real servers that check them."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult
from copier import run_copy

from tests.support.edge import ENVIRONMENT
from tests.support.environments import lend_packages
from tests.support.servers import Postgres, free_port, running, wait_for_port

pytestmark = pytest.mark.needs("postgresql", "redis-server")
# As it is, but for what would have two readings.
PASSWORD, WRITTEN = "p#1/?[x]:%&= ä@'\"z", "p#1/?[x]:%&= ä%40'\"z"
LOOK = """
from wsgi import app
from bulwark import mail
from bulwark.database import db
from bulwark.jobs import queue
from bulwark.mail import outbox
from bulwark.web.rate_limits import limiter
with app.app_context():
    mail.send("Hello", "zoe@example.org", "Text.")
    db.session.commit()
    outbox.deliver_due()
    print("waiting", db.session.query(outbox.OutgoingMail).count())
    print("jobs", queue.pending_count())
    print("counts", limiter.storage.check())
"""


class Inbox:
    """A mail server that lets in whoever has the password."""

    def __init__(self) -> None:
        self.receivers: list[str] = []
        self.given = b""

    async def handle_DATA(self, _: object, __: object, envelope: object) -> str:  # noqa: N802
        self.receivers += envelope.rcpt_tos  # type: ignore[attr-defined]
        return "250 OK"

    def check(self, *arguments: object) -> AuthResult:
        self.given = arguments[-1].password  # type: ignore[attr-defined]
        return AuthResult(success=self.given == PASSWORD.encode())


@pytest.fixture
def inbox() -> Iterator[tuple[Inbox, int]]:
    """A mail server and its port."""
    box = Inbox()
    controller = Controller(
        box,
        hostname="127.0.0.1",
        port=free_port(),
        authenticator=box.check,
        auth_require_tls=False,
    )
    controller.start()
    yield box, controller.port
    controller.stop()


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[int]:
    """The port of a Redis that asks for the password."""
    port = free_port()
    settings = tmp_path / "redis.conf"
    word = PASSWORD.replace("\\", "\\\\").replace('"', '\\"')
    settings.write_text(f'bind 127.0.0.1\nport {port}\nsave ""\nrequirepass "{word}"\n')
    with running("redis-server", settings, log=tmp_path / "redis", cwd=tmp_path) as it:
        wait_for_port(port, it)
        yield port


def database_with_a_password(postgres: Postgres) -> str:
    """Make a role that has to sign in; return the URL of its database."""
    place, _, name = (
        postgres.database().removeprefix("postgresql://postgres@").partition("/")
    )
    hba = postgres.folder / "data/pg_hba.conf"
    rule = "host all asked 127.0.0.1/32 scram-sha-256\n"
    hba.write_text(rule + hba.read_text())
    word = PASSWORD.replace("'", "''")
    for sql in (
        f"CREATE ROLE asked LOGIN PASSWORD '{word}'",
        f"ALTER DATABASE {name} OWNER TO asked",
        "SELECT pg_reload_conf()",
    ):
        host, _, port = place.partition(":")
        address = ("-h", host, "-p", port, "-U", "postgres", "-d", name)
        postgres.call("psql", "-q", *address, "-c", sql)
    return f"postgresql://asked:{WRITTEN}@{place}/{name}"


def test_each_server_gets_the_password_that_is_meant(
    template: Path,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    postgres: Postgres,
    redis: int,
    inbox: tuple[Inbox, int],
) -> None:
    service = tmp_path / "service"
    answers = {"domain": "shop.test", "database": "postgresql"}
    run_copy(str(template), service, answers, defaults=True, unsafe=True, quiet=True)
    lend_packages(service, tmp_path_factory)
    box, port = inbox
    with (service / ".env.production").open("a") as file:
        file.write(f"APP_MAIL_URL=smtp://user:{WRITTEN}@127.0.0.1:{port}\n")
        file.write(f"APP_REDIS_URL=redis://:{WRITTEN}@127.0.0.1:{redis}/1\n")
        file.write(f"APP_DATABASE_URL={database_with_a_password(postgres)}\n")
    output = ""
    for command in (
        ("-m", "flask", "--app", "wsgi", "prepare"),
        ("-c", LOOK),
        ("-m", "flask", "--app", "wsgi", "backup", "backups"),
    ):
        done = subprocess.run(
            [service / ".venv/bin/python", *command],
            cwd=service,
            env=ENVIRONMENT | {"HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
        output += done.stdout + done.stderr
        assert done.returncode == 0, output
    assert "waiting 0" in output
    assert "counts True" in output
    assert (box.given, box.receivers) == (PASSWORD.encode(), ["zoe@example.org"])
    assert "p#1" not in output
