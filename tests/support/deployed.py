"""A server with the service on it, put there by the commands of deploy/systemd.

    disk = installed(tmp_path_factory)  # once a run, whichever worker asks first
    with Server(disk) as server:        # boots a copy of it in a second
        server.certify()                # https as well, with a certificate of its own
        assert server.ask("/healthz").status == 200

Server is a Machine; every test may do to its own what it likes.
"""

import http.client
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar

import pytest

from tests.support.certificates import certify
from tests.support.machine import Machine
from tests.support.servers import PATIENCE
from tests.support.visitor import DOMAIN, Response, Visitor

NAME = "edge-test"
ALIAS = f"www.{DOMAIN}"
UNITS = {"nginx": "nginx", "apache": "apache2"}
HOME, SETTINGS = f"/srv/{NAME}", f"/etc/{NAME}/env.production"
LIVE = f"/etc/letsencrypt/live/{DOMAIN}"
# What the team develops in, and pushes from: the server's clone comes from here.
TEAM = "/root/team"


class Server(Machine):
    """A machine with the service, or one that is about to get it."""

    PARTS = ("web", "worker", "metrics")

    def __init__(
        self,
        disk: Path | None = None,
        suite: str = "trixie",
        *,
        parts: Sequence[str] = PARTS,
        apart: bool = False,
    ) -> None:
        """Boot a disk of `installed`, or Debian as it is.

        Only some parts of the service start with it; without "web" its socket is there,
        and the first request starts it.
        """
        suite = disk.name.split("-")[0] if disk else suite
        super().__init__(suite, disk, apart=apart)
        self.parts = parts

    def absent(self) -> Sequence[str]:
        if self.parts == self.PARTS:
            return ()
        wants = Path("etc/systemd/system/multi-user.target.wants")
        links = {
            str(wants / link.name): link.name.partition("@")[2].removesuffix(".service")
            for disk in self.disks
            for link in (disk / wants).glob(f"{NAME}@*.service")
        }
        others = {"worker", "metrics"}
        return [
            path
            for path, part in links.items()
            if (part if part in others else "web") not in self.parts
        ]

    @property
    def proxy(self) -> str:
        """Which one the service is answered to have."""
        text = self.path(f"{HOME}/current/service.toml").read_text()
        return "apache" if 'proxy = "apache"' in text else "nginx"

    def deploy(self, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of deploy/ from the release that serves, or from the clone."""
        serving = self.path(f"{HOME}/current").is_symlink()
        folder = f"{HOME}/current" if serving else f"{HOME}/repository"
        return self.attempt("env", "-C", folder, f"deploy/{command}", *arguments)

    def install(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.deploy("systemd/install", *arguments)

    def release(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.deploy("systemd/release", *arguments)

    @property
    def current(self) -> str:
        """The release that serves."""
        return self.path(f"{HOME}/current").readlink().name

    def commit(self, files: dict[str, str]) -> None:
        """Let the team commit files: each is written, or added to when it is there."""
        for name, text in files.items():
            with self.path(f"{TEAM}/{name}").open("a") as file:
                file.write(text)
        self.run("git", "-C", TEAM, "add", "-A")
        self.run("git", "-C", TEAM, "commit", "-qm", f"Change {', '.join(files)}")

    def certify(self) -> None:
        """Put a self-signed certificate where certbot would, and https in the proxy."""
        self.path(LIVE).mkdir(parents=True)
        certify(
            DOMAIN, *(self.path(f"{LIVE}/{n}.pem") for n in ("fullchain", "privkey"))
        )
        done = self.deploy(f"{self.proxy}/apply")
        assert done.returncode == 0, done.stderr
        # After a mere reload the old workers answer for a moment more.
        self.run("systemctl", "restart", UNITS[self.proxy])

    def reset(self) -> None:
        """Take back what tests do that mean to leave all as it was."""
        first = self.run("git", "-C", f"{HOME}/repository", "rev-parse", "HEAD").strip()
        self.run("git", "-C", TEAM, "reset", "-q", "--hard", first)
        self.run("systemctl", "reset-failed")

    def connect(self, port: int = 443, source: str = "") -> "Connection":
        """Open a connection to the proxy, from one of the tests' addresses."""
        connection = Connection(self, port, source or self.visitor)
        connection.connect()
        return connection

    def ask(
        self, target: str, method: str = "GET", body: Any = None, **options: Any
    ) -> Response:
        """Ask the proxy over https, or over http with `port=80`."""
        return ServerVisitor(self).ask(target, method, body, **options)


class ServerVisitor(Visitor):
    """A client at one of the tests' addresses."""

    def __init__(self, server: Server) -> None:
        super().__init__()
        self.server = server

    def connect(self, port: int = 443) -> socket.socket:
        opened: socket.socket = self.server.connect(port).sock
        return opened


S = TypeVar("S", bound=Server)


class Lender(Generic[S]):
    """Lends one machine to test after test, and after one that failed another one."""

    def __init__(self, boot: Callable[[], S]) -> None:
        self.boot = boot
        self.machine: S | None = None

    @contextmanager
    def lend(self, session: pytest.Session) -> Iterator[S]:
        failed = session.testsfailed
        try:
            if self.machine:
                self.machine.reset()
            else:
                self.machine = self.boot().__enter__()
            yield self.machine
        except BaseException:
            self.close()
            raise
        if session.testsfailed > failed:
            self.close()

    def close(self) -> None:
        machine, self.machine = self.machine, None
        if machine:
            machine.end()


class Connection(http.client.HTTPConnection):
    """A connection to the proxy, over TLS unless to port 80; reopens when closed."""

    def __init__(self, server: Server, port: int, source: str) -> None:
        super().__init__(server.address, port, PATIENCE, source_address=(source, 0))
        self.context: ssl.SSLContext | None = None
        if port == 443:
            certificate = server.path(f"{LIVE}/fullchain.pem").read_text()
            self.context = ssl.create_default_context(cadata=certificate)

    def connect(self) -> None:
        """Connect, and shake hands."""
        super().connect()
        if self.context:
            self.sock = self.context.wrap_socket(self.sock, server_hostname=DOMAIN)
