"""A service as it is deployed: nginx, gunicorn, worker, SMTP; and its visitors."""

import json
import os
import socket
import ssl
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.conftest import run
from tests.support.servers import PATIENCE, Mailbox, Nginx, eventually, running
from tests.support.visitor import DOMAIN, Visitor

SLUG = "edge-test"
ANSWERS = {"project_name": "Edge Test", "domain": DOMAIN}
# What a process finds on a server: no variable of whoever runs the tests.
ENVIRONMENT = {"APP_ENV": "production", "PATH": os.environ["PATH"]}


class EdgeVisitor(Visitor):
    """A client on the network, which may send anything to the ports of the server."""

    def __init__(self, nginx: Nginx) -> None:
        super().__init__()
        self.nginx = nginx

    def connect(
        self, port: int = 443, name: str | None = DOMAIN, **settings: Any
    ) -> socket.socket:
        """Connect, over TLS to a server of that name; settings are the context's."""
        plain = socket.create_connection(
            ("127.0.0.1", self.nginx.ports[port]), PATIENCE
        )
        if port != 443:
            return plain
        context = ssl.create_default_context(cafile=str(self.nginx.certificate))
        context.check_hostname = name is not None
        for setting, value in settings.items():
            setattr(context, setting, value)
        context.set_alpn_protocols(["h2"] if settings else ["http/1.1"])
        return context.wrap_socket(plain, server_hostname=name)

    def send_lines(self, *lines: str, port: int = 443) -> bytes:
        """Send lines unchanged; return all that comes back."""
        with self.connect(port) as stream:
            stream.sendall("\r\n".join([*lines, "", ""]).encode())
            return b"".join(iter(lambda: stream.recv(65536), b""))


class Member(NamedTuple):
    """A user who signed up with a link, in the browser that is signed in."""

    visitor: EdgeVisitor
    link: str


class Site:
    """A service in production, run as deploy/ runs it; `folder` holds what they log."""

    def __init__(self, service: Path, folder: Path) -> None:
        self.service, self.folder = service, folder
        self.nginx = Nginx(service, DOMAIN, SLUG, folder / "nginx")
        self.mailbox = Mailbox()
        self.settings = service / ".env.production"
        with self.settings.open("a") as file:
            file.write(f"APP_MAIL_URL=smtp://127.0.0.1:{self.mailbox.port}\n")

    def run(self, command: str, log: str) -> AbstractContextManager[Any]:
        program, *arguments = command.split()
        return running(
            self.service / ".venv/bin" / program,
            *arguments,
            log=self.folder / log,
            cwd=self.service,
            env=ENVIRONMENT | {"HOME": str(self.folder / "home")},
        )

    @contextmanager
    def running(self) -> Iterator["Site"]:
        with (
            self.mailbox.running(),
            self.run("flask --app wsgi prepare", "prepare") as prepare,
        ):
            assert prepare.wait() == 0, (self.folder / "prepare.err").read_text()
            with (
                self.run(f"gunicorn --bind=unix:{self.nginx.socket}", "web") as web,
                self.run("flask --app wsgi worker", "worker"),
                self.nginx.running(),
            ):
                eventually(lambda: web.poll() is not None or self.nginx.socket.exists())
                assert web.poll() is None, (self.folder / "web.err").read_text()
                yield self

    def lines(self, log: str) -> list[dict[str, Any]]:
        text = (self.folder / log).read_text()
        return [json.loads(line) for line in text.splitlines()]

    def all_that_is_logged(self) -> str:
        logs = [path for path in self.folder.glob("*") if path.is_file()]
        return "\n".join(p.read_text() for p in [*logs, *self.nginx.logs()])


def collect(service: Path) -> None:
    """Write what nginx serves by itself."""
    flask = (service / ".venv/bin/flask", "--app", "wsgi")
    testing = ENVIRONMENT | {"APP_ENV": "testing"}
    run(*flask, "collect", "public", cwd=service, env=testing)
