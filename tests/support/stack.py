"""The service in containers: compose.yaml, run by Docker on a machine."""

import json
import os
import re
import socket
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.support.engine import Engine
from tests.support.pebble import TRUST
from tests.support.servers import PATIENCE
from tests.support.visitor import DOMAIN, Response, exchange

NAME = "edge-test"
ANSWERS = {"project_name": "Edge Test", "domain": DOMAIN}
SERVICE, EDGE = 10001, 10002  # users that no other image knows
NOBODY = 65534  # who runs in Prometheus' images

# Of the team, too: here, whom certbot trusts. Of Grafana, Debian has no package.
OVERRIDE = f"""
services:
  grafana: {{profiles: !override [elsewhere]}}
  certbot:
    environment: {{REQUESTS_CA_BUNDLE: "{TRUST}", SSL_CERT_FILE: "{TRUST}"}}
    volumes: ["{TRUST}:{TRUST}:ro"]
"""


@dataclass(frozen=True)
class ProxyResponse(Response):
    """A response, and the serial number of the certificate that it came with."""

    serial: str | None


class Stack:
    """A service that compose runs on an engine."""

    def __init__(
        self,
        engine: Engine,
        service: Path,
        proxy: str = "{}",
        *,
        watched: bool = False,
    ) -> None:
        """Bring it to its server as in deploy/README.md, with an override of ours."""
        self.engine = engine
        self.authority = ""  # whom visitors trust
        self.begun: dict[str, dict[str, Any]] = {}
        self.folder = f"/srv/{service.name}"
        self.content = yaml.safe_load((service / "compose.yaml").read_text())
        self.profile = ("--profile", "monitoring") if watched else ()
        for name, container in list(self.content["services"].items()):
            if "profiles" in container and (name == "grafana" or not watched):
                del self.content["services"][name]
        self.name = self.content["name"]
        with (service / ".env.production").open("a") as file:
            file.write("APP_MAIL_URL=smtp://127.0.0.1:25\n")
        self.settings = dict(
            re.findall(
                r"^(\w+)=(.+)$", (service / ".env.production").read_text(), re.MULTILINE
            )
        )
        engine.copy(service, self.folder)
        override = OVERRIDE + f"  proxy:\n    {proxy}\n"
        engine.write(f"{self.folder}/compose.override.yaml", override)
        password = self.settings.get("APP_DATABASE_PASSWORD", "")
        engine.write(f"{self.folder}/.env.database", password)
        backups = engine.path(f"/var/backups/{self.name}")
        backups.mkdir(mode=0o700)
        os.chown(backups, SERVICE, SERVICE)
        example = (service / "deploy/monitoring/receivers.example.yml").read_text()
        engine.write(f"{self.folder}/.env.receivers.yml", example)
        for secret, owner in (
            (".env.production", SERVICE),
            (".env.database", 999),
            (".env.receivers.yml", NOBODY),
        ):
            path = engine.path(f"{self.folder}/{secret}")
            path.chmod(0o400)
            os.chown(path, owner, 0)

    def compose(self, *command: str) -> str:
        """Run a command of docker compose; return its stdout."""
        place = ("--project-directory", self.folder, *self.profile)
        return self.engine.run("docker", "compose", *place, *command)

    def up(self) -> None:
        self.compose("up", "--build", "--detach", "--wait")

    def python(self, name: str, program: str) -> str:
        return self.compose("exec", "-T", name, "python3", "-c", program)

    def state(self, name: str) -> dict[str, Any]:
        """Return what Docker knows of a container."""
        ids = self.compose("ps", "--all", "--quiet", name).split()
        state: dict[str, Any] = json.loads(self.engine.run("docker", "inspect", *ids))[
            0
        ]
        return state

    def processes(self, name: str) -> list[Path]:
        """Return the folders in /proc of all processes of a container."""
        proc = self.engine.path("/proc")
        first = (proc / str(self.state(name)["State"]["Pid"]) / "ns/pid").readlink()
        found = []
        for folder in proc.glob("[0-9]*"):
            try:
                if (folder / "ns/pid").readlink() == first:
                    found.append(folder)
            except OSError:  # it has ended meanwhile
                continue
        assert found
        return found

    def ask(self, target: str, port: int = 443) -> ProxyResponse:
        """Ask the proxy, trusting the authority that issues here."""
        stream = socket.create_connection((self.engine.address, port), 60)
        serial = None
        if str(port).endswith("443"):
            trust = ssl.create_default_context(cadata=self.authority)
            tls = trust.wrap_socket(stream, server_hostname=DOMAIN)
            serial = str((tls.getpeercert() or {})["serialNumber"])
            stream = tls
        with stream:
            response = exchange(stream, "GET", target, headers={"Host": DOMAIN})
        return ProxyResponse(response.status, response.headers, response.body, serial)

    def sql(self, query: str) -> str:
        """Ask the database; return what it answers."""
        ask = f'PGPASSWORD=$(cat /run/secrets/database) psql -U {self.name} -tAc "$0"'
        return self.compose("exec", "-T", "database", "sh", "-c", ask, query).strip()


@contextmanager
def visiting(
    stack: Stack, target: str, port: int = 443
) -> Iterator[list[ProxyResponse]]:
    """Send requests again and again while the block lasts."""

    def visit() -> None:
        while not over.wait(0.05):
            answers.append(stack.ask(target, port))

    answers: list[ProxyResponse] = []
    over = threading.Event()
    with ThreadPoolExecutor() as pool:
        visitor = pool.submit(visit)
        try:
            yield answers
        finally:
            over.set()
        visitor.result(PATIENCE)
