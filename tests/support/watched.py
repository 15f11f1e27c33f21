"""A service in production that is watched, and a clock that goes faster."""

import fcntl
import hashlib
import os
import re
import shutil
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from subprocess import Popen
from typing import Any, Self

import pytest
from copier import run_copy

from tests.conftest import run
from tests.support.clients import Service
from tests.support.edge import SLUG
from tests.support.servers import PATIENCE, Nginx, eventually, free_port, wait_for_port
from tests.support.visitor import DOMAIN

FLASK = ("flask", "--app", "wsgi")
# What the service does by the clock, for a test that has no hour: added to app/.
FASTER = """
from bulwark.ops import state_metrics
from bulwark.identity import throttling

state_metrics.RECENT /= {speed}
state_metrics.CERTIFICATE_CACHED /= {speed}
throttling.WINDOW /= {speed}
"""
FASTER_JOBS = """
import datetime
import time

from huey.consumer import Scheduler

from bulwark import jobs

Scheduler.periodic_task_seconds /= {speed}


def _read_periodic(_):
    now = datetime.datetime.fromtimestamp(time.time() * {speed})
    found = jobs.queue._registry.periodic_tasks
    return [task for task in found if task.validate_datetime(now)]


jobs.queue.read_periodic = _read_periodic
"""
# A password costs what it costs in a service's own tests. No alert depends on it.
CHEAPER = """
from bulwark.identity.security import settings as hashes

hashes.BCRYPT_ROUNDS = hashes.BCRYPT_ROUNDS_IN_TESTS
"""


def make_service(template: Path, folder: Path, **answers: Any) -> Path:
    """Make a service with all that it needs to run; return its folder."""
    made = render(template, folder, **answers)
    run(os.environ["UV"], "sync", "--quiet", "--no-dev", cwd=made)
    return made


def copy_service(
    factory: pytest.TempPathFactory, template: Path, folder: Path, **answers: Any
) -> Path:
    """Copy a service that is made once per run; return its folder.

    Services with the same pyproject.toml share their packages: nobody may change those.
    """
    shared = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    shared /= "services"
    shared.mkdir(exist_ok=True)
    original = shared / "-".join(["made", *map(str, answers.values())])
    with (shared / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (original / "done").exists():
            shutil.rmtree(original, ignore_errors=True)  # of one that failed
            made = render(template, original, **answers)
            _add_packages(made, shared)
            with (made / "app/__init__.py").open("a") as file:
                file.write(CHEAPER)
            (original / "done").touch()
    copied = folder / "service"
    return Path(shutil.copytree(original / "service", copied, symlinks=True))


def _add_packages(made: Path, shared: Path) -> None:
    """Give a service its packages, in an environment that others use, too."""
    state = hashlib.sha256((made / "pyproject.toml").read_bytes()).hexdigest()
    packages = shared / f"packages-{state[:12]}"
    (made / ".venv").symlink_to(packages)
    sync = (os.environ["UV"], "sync", "--quiet", "--no-dev")
    run(*sync, cwd=made, env=os.environ | {"UV_PROJECT_ENVIRONMENT": str(packages)})
    # Else each copy compiles these when it first starts.
    run(packages / "bin/python", "-m", "compileall", "-q", "bulwark", "app", cwd=made)


def render(template: Path, folder: Path, **answers: Any) -> Path:
    """Copy the template; return the service."""
    made = folder / "service"
    given = {"domain": DOMAIN, "project_slug": SLUG, **answers}
    run_copy(
        str(template),
        made,
        given,
        vcs_ref="HEAD",
        defaults=True,
        unsafe=True,
        quiet=True,
    )
    return made


def hasten(service: Path, speed: int, *parts: str) -> None:
    """Let a service live so many times as fast, or parts of it."""
    with (service / "app/__init__.py").open("a") as file:
        for part in parts or (FASTER, FASTER_JOBS):
            file.write(part.format(speed=speed))


class Watched(Service):
    """A service in production, with its worker and the exporter of its metrics.

    With `proxy` it is reached as by visitors, at a port of this machine.
    """

    PARTS: tuple[str, ...] = ("web", "worker", "metrics")

    def __init__(
        self, folder: Path, database: str | None = None, *, proxy: bool = False
    ) -> None:
        super().__init__(folder, database)
        self.parts: dict[str, Popen[bytes]] = {}
        self.port = free_port()
        self.set("METRICS_BIND", f"127.0.0.1:{self.port}")
        self.nginx = self._proxy() if proxy else None

    def set(self, setting: str, value: str) -> None:
        with (self.folder / "service/.env.production").open("a") as file:
            file.write(f"APP_{setting}={value}\n")

    def _proxy(self) -> Nginx:
        """Return the proxy as it is delivered, for one more name, which leads here."""
        nginx = Nginx(self.folder / "service", DOMAIN, SLUG, self.folder / "nginx")
        site = nginx.service / "deploy/nginx/https.conf"
        text = site.read_text()
        site.write_text(text.replace(f"name {DOMAIN};", f"name {DOMAIN} localhost;"))
        done = nginx.apply()
        assert done.returncode == 0, done.stderr
        self.socket = nginx.socket
        self.set("BASE_URL", f"https://localhost:{nginx.ports[443]}")
        self.set("ALLOWED_HOSTS", f"{DOMAIN},localhost")
        return nginx

    @contextmanager
    def running(self) -> Iterator[Self]:
        with self.mailbox.running(), ExitStack() as self.stack:
            if self.nginx:
                self.stack.enter_context(self.nginx.running())
            self.flask("prepare")
            for part in self.PARTS:
                self.start(part)
            yield self

    def start(self, part: str) -> None:
        gunicorn = ("gunicorn", f"--bind=unix:{self.socket}")
        words = gunicorn if part == "web" else (*FLASK, part)
        running = self.stack.enter_context(self.command(*words, log=part))
        self.parts[part] = running
        if part == "web":
            eventually(self.socket.exists)
        if part == "metrics":
            wait_for_port(self.port, running)

    def stop(self, part: str) -> None:
        self.parts[part].terminate()
        self.parts[part].wait(PATIENCE)

    @contextmanager
    def without(self, part: str) -> Iterator[None]:
        """Let a part be away while the block lasts."""
        self.stop(part)
        try:
            yield
        finally:
            self.start(part)

    def flask(self, *words: str) -> None:
        """Run one of the service's commands."""
        log = words[0]
        with self.command(*FLASK, *words, log=log) as done:
            assert done.wait() == 0, (self.folder / f"{log}.err").read_text()

    def samples(self) -> Iterator[tuple[str, str, float]]:
        """Yield each name with its labels and its value."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics") as answer:
            metrics = answer.read().decode()
        for name, labels, value in re.findall(r"(?m)^(\w+)({.*})? (\S+)$", metrics):
            yield name, labels, float(value)

    def value(self, metric: str, *labels: str) -> float:
        return sum(
            value
            for name, output, value in self.samples()
            if name == metric and all(label in output for label in labels)
        )
