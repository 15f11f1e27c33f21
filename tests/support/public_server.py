"""A server that visitors from many networks reach."""

import itertools
import json
import socket
import ssl
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType

from tests.support.deployed import HOME, LIVE, NAME, SETTINGS, Server
from tests.support.servers import PATIENCE, eventually
from tests.support.visitor import DOMAIN, Visitor

LOG = "/var/log/nginx/access.log"

SHORTLY = 2.0  # seconds

# With this option a socket may have any address of a local IPv6 route: ipv6(7).
IPV6_FREEBIND = 78

# Records security events as a request does: name, address and browser in each line.
RECORD = """
import json, sys
from wsgi import app
from bulwark.audit import events
from bulwark.database import db
for name, address, agent in json.load(sys.stdin):
    with app.test_request_context(
        "/login", environ_base={"REMOTE_ADDR": address}, headers={"User-Agent": agent}
    ):
        for known in events.CATALOGUE if name == "each" else [name]:
            kept = events.CATALOGUE[known].audited
            (events.record if kept else events.emit)(known)
        db.session.commit()
"""


class PublicServer(Server):
    """A server, and a network with as many addresses of visitors as needed."""

    def booted(self) -> None:
        self.numbers, self.open_streams = itertools.count(20), ExitStack()
        # There is no name server. fail2ban looks up the server's own name, and would
        # wait for the name server of the machine that runs the tests.
        self.run("sh", "-c", "echo nameserver 127.0.0.1 >/etc/resolv.conf")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.open_streams.close()
        super().__exit__(kind, error, trace)

    def fresh_address(self, subnet: str = "") -> str:
        """Return an unused address: of IPv4, or in that /64 of IPv6."""
        number = next(self.numbers)
        if subnet:
            return f"{self.network_6}:{subnet}::{number:x}"
        return f"{self.visitor.rpartition('.')[0]}.{number}"

    def open(
        self, address: str, port: int = 443, patience: float = SHORTLY
    ) -> socket.socket:
        """Connect from an address; OSError is no answer in so many seconds."""
        of_ipv6 = ":" in address
        plain = socket.socket(socket.AF_INET6 if of_ipv6 else socket.AF_INET)
        self.open_streams.enter_context(plain)
        plain.settimeout(patience)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if of_ipv6:
            plain.setsockopt(socket.IPPROTO_IPV6, IPV6_FREEBIND, 1)
        plain.bind((address, 0))
        plain.connect((self.address_6 if of_ipv6 else self.address, port))
        return plain

    def answers(self, address: str, port: int = 443) -> bool:
        """Return whether the kernel lets an address connect."""
        try:
            self.open(address, port).close()
        except (ConnectionRefusedError, TimeoutError):
            return False
        return True

    def listens_to_quic(self) -> bool:
        return "quic" in self.path(f"/etc/nginx/{NAME}/listen.conf").read_text()

    def refuses_quic(self, address: str) -> bool:
        """Return whether the kernel rejects a datagram."""
        with socket.socket(type=socket.SOCK_DGRAM) as visitor:
            visitor.settimeout(0.5)
            visitor.bind((address, 0))
            visitor.connect((self.address, 443))
            visitor.send(bytes(1200))
            try:
                visitor.recv(1)
            except ConnectionRefusedError:
                return True
            except TimeoutError:
                return False
        raise AssertionError("answered what is no QUIC")

    def banned(self) -> set[str]:
        """Return the addresses that the kernel rejects."""
        table = json.loads(self.run("nft", "--json", "list", "ruleset"))["nftables"]
        found = [one for part in table for one in part.get("set", {}).get("elem", [])]
        return {
            f"{one['prefix']['addr']}/{one['prefix']['len']}"
            if isinstance(one, dict)
            else one
            for one in found
        }

    def wait_for_ban(self, who: str) -> None:
        eventually(lambda: who in self.banned(), 20)

    def record(self, *happened: tuple[str, str, str]) -> None:
        """Let the service record security events: name, address and browser of each."""
        python = f"cd {HOME}/current && exec .venv/bin/python -c '{RECORD}'"
        done = subprocess.run(
            self.enter(
                *("runuser", "-u", NAME, "--", "env", "APP_ENV=production"),
                *(f"ENV_FILE={SETTINGS}", "systemd-cat", "-t", "gunicorn"),
                *("sh", "-c", python),
            ),
            input=json.dumps(happened),
            text=True,
            check=False,
        )
        assert done.returncode == 0, self.journal("-n", "30")

    def fail2ban_regex(self, log: str, mode: str) -> list[str]:
        """Return whom fail2ban sees in a log, once for each line that counts."""
        output = self.run("fail2ban-regex", "-o", "id", log, f"{NAME}[mode={mode}]")
        return output.split()


class PublicVisitor(Visitor):
    """A client with an address of its own, and a connection that stays open."""

    persistent = True
    patience: float = PATIENCE

    def __init__(self, server: PublicServer, address: str = "") -> None:
        super().__init__()
        self.server, self.address = server, address or server.fresh_address()

    def connect(self, port: int = 443) -> ssl.SSLSocket:
        trusted = ssl.create_default_context(
            cadata=self.server.path(f"{LIVE}/fullchain.pem").read_text()
        )
        plain = self.server.open(self.address, port, self.patience)
        stream = trusted.wrap_socket(plain, server_hostname=DOMAIN)
        return self.server.open_streams.enter_context(stream)

    def send_line(self, line: bytes, *headers: bytes) -> bytes:
        """Send a request unchanged; return the first line of the response."""
        with self.connect() as stream:
            host = f"Host: {DOMAIN}".encode()
            stream.sendall(b"\r\n".join((line, host, *headers, b"", b"")))
            return stream.recv(65536).partition(b"\r\n")[0]

    def attack(self, act: Callable[[int], object]) -> int:
        """Repeat it until the server no longer responds; return how often it did."""
        self.connection.close()
        self.patience = SHORTLY
        number, end = 0, time.monotonic() + PATIENCE
        while time.monotonic() < end:
            try:
                act(number)
            except OSError:
                self.connection.close()
                if not self.server.answers(self.address):
                    return number
            number += 1
        raise TimeoutError(f"banned are {self.server.banned()} alone")
