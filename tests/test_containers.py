"""The service in containers: what compose.yaml says, and what Docker makes of it."""

import hashlib
import http.client
import json
import os
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from compose_spec import PyCompose
from copier import run_copy

from tests.conftest import ROOT, Make, run
from tests.engine import Engine
from tests.pebble import TRUST, Pebble
from tests.servers import PATIENCE

DOMAIN, NAME = "shop.bulwark-tests.net", "edge-test"
ANSWERS = {"project_name": "Edge Test", "domain": DOMAIN}
SERVICE, EDGE = 10001, 10002  # users that no other image knows

needs_docker = [
    pytest.mark.needs("debootstrap", "iproute2"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a machine"),
]

VIEWS = """

@blueprint.get("/test/slow/<int:seconds>")
@public
def slow(seconds: int) -> ResponseReturnValue:
    import time

    time.sleep(seconds)
    return {"seconds": seconds}
"""


# --- The files --------------------------------------------------------------------------


def test_hadolint_and_shellcheck_find_nothing(make: Make) -> None:
    folder = make(**ANSWERS) / "deploy/docker"
    run("hadolint", "Dockerfile", cwd=folder)
    run("shellcheck", "every", "proxy", cwd=folder)


def test_the_builder_gets_what_is_copied_and_nothing_else(make: Make) -> None:
    folder = make(**ANSWERS) / "deploy/docker"
    dockerfile = (folder / "Dockerfile").read_text()
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", dockerfile, re.MULTILINE)
    names = {name.split("/")[0] for line in copied for name in line.split()}
    ignored = (folder / "Dockerfile.dockerignore").read_text().splitlines()
    assert {f"!{name}" for name in names} == {x for x in ignored if x.startswith("!")}
    assert not names & {".", "bin", ".env", ".env.production", "instance"}


@pytest.mark.parametrize("proxy", ["nginx", "apache"])
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_the_compose_file_is_valid_and_says_nothing_twice_or_in_vain(
    make: Make, database: str, proxy: str
) -> None:
    service = make(**ANSWERS, database=database, proxy=proxy)
    content = yaml.safe_load((service / "compose.yaml").read_text())
    PyCompose.from_json(json.dumps(content))
    containers = content["services"]
    expected = {"web", "worker", "prepare", "backup", "redis", "proxy", "certbot"}
    assert containers.keys() - {"database"} == expected
    assert ("database" in containers) == (database == "postgresql")

    used: dict[str, set[str]] = {"volumes": set(), "networks": set(), "secrets": set()}
    for name, container in containers.items():
        assert container["read_only"], name
        assert container["cap_drop"] == ["ALL"], name
        assert "cap_add" not in container, name
        assert container["security_opt"] == ["no-new-privileges:true"], name
        assert container["logging"] == {"driver": "local"}, name
        assert {"cpu_shares", "mem_limit", "pids_limit"} <= container.keys(), name
        assert ("ports" in container) == (name == "proxy"), name
        outside = {"proxy": {"edge"}, "certbot": {"edge"}, "worker": {"mail"}}
        assert set(container.get("networks", ())) == outside.get(name, set()), name
        assert name in outside or container["network_mode"] == "none", name
        volumes = (v for v in container["volumes"] if isinstance(v, str))
        used["volumes"] |= {volume.split(":")[0] for volume in volumes}
        for kind in ("networks", "secrets"):
            used[kind] |= set(container.get(kind, ()))
    for kind, names in used.items():
        assert content[kind].keys() == names

    dockerfile = (service / "deploy/docker/Dockerfile").read_text()
    stages = set(re.findall(r"^FROM .* AS (\S+)$", dockerfile, re.MULTILINE))
    built = [c["build"]["target"] for c in containers.values() if "build" in c]
    followed = set(re.findall(r"^(?:FROM|COPY --from=)(\S+) ", dockerfile, re.MULTILINE))
    followed |= set(re.findall(r"^FROM (\S+) AS", dockerfile, re.MULTILINE))
    assert stages <= set(built) | followed


def test_what_is_not_deployed_in_containers_has_no_files_for_it(make: Make) -> None:
    service = make(deploy=["systemd"])
    assert not (service / "compose.yaml").exists()
    assert not (service / "deploy/docker").exists()


# --- Run by Docker ----------------------------------------------------------------------


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    serial: str | None


class Stack:
    """A service that compose runs on an engine."""

    def __init__(self, engine: Engine, service: Path) -> None:
        """Bring it to its server, as deploy/README.md says."""
        self.engine = engine
        self.folder = f"/srv/{service.name}"
        self.answers = yaml.safe_load((service / "compose.yaml").read_text())
        self.name = self.answers["name"]
        with (service / ".env.production").open("a") as file:
            file.write("APP_MAIL_URL=smtp://127.0.0.1:25\n")
        self.settings = (service / ".env.production").read_text()
        engine.copy(service, self.folder)
        word = re.search("^APP_DATABASE_PASSWORD=(.+)", self.settings, re.MULTILINE)
        engine.write(f"{self.folder}/.env.database", word[1] if word else "")
        for command in (
            f"install -o {SERVICE} -m 400 -t {self.folder} {self.folder}/.env.production",
            f"install -o 999 -m 400 -t {self.folder} {self.folder}/.env.database",
            f"install -d -o {SERVICE} -m 700 /var/backups/{self.name}",
        ):
            engine.attempt(*command.split())

    def compose(self, *command: str) -> str:
        place = ("--project-directory", self.folder, "--progress", "quiet")
        return self.engine.run("docker", "compose", *place, *command)
