"""A server with the service on it, put there by the commands of deploy/systemd.

    disk = installed(tmp_path_factory)  # once a session, whichever worker asks first
    with Server(disk) as server:        # boots a copy of it in a second
        server.certify()                # https as well, with a certificate of its own
        assert server.ask("/healthz").status == 200

Server is a Machine; every test may do to its own what it likes.
"""

import fcntl
import http.client
import itertools
import json
import os
import shutil
import ssl
import subprocess
import threading
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import pytest
from copier import run_copy

from tests.conftest import ROOT, commit, run
from tests.machine import Machine
from tests.servers import PATIENCE, certify

DOMAIN, NAME = "shop.bulwark-tests.net", "edge-test"
ANSWERS = {"project_name": "Edge Test", "domain": DOMAIN, "ci": "none"}
PYTHON = {"bookworm": "3.11", "trixie": "3.13"}
HOME, SETTINGS = f"/srv/{NAME}", f"/etc/{NAME}/env.production"
LIVE = f"/etc/letsencrypt/live/{DOMAIN}"
# What the team develops in, and pushes from: the server's clone comes from here.
TEAM = "/root/team"

# What the team has added: pages where a request leaves a trace, takes long, and learns
# which release answers.
VIEWS = """

import time
from pathlib import Path
from flask import current_app, request
from bulwark.identity import csrf
from bulwark.limits import limit


@blueprint.post("/test/keep")
@csrf.exempt
@public
def keep() -> ResponseReturnValue:
    with Path(current_app.instance_path, "kept").open("a") as file:
        file.write(request.get_data(as_text=True) + "\\n")
    return {"kept": True}


@blueprint.get("/test/slow/<int:seconds>")
@public
@limit("1000 per minute")
def slow(seconds: int) -> ResponseReturnValue:
    time.sleep(seconds)
    return {"seconds": seconds}


@blueprint.get("/test/release")
@public
def release() -> ResponseReturnValue:
    return {"release": Path.cwd().name}
"""


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: str


class Server(Machine):
    """A machine with the service, or one that is about to get it."""

    def __init__(self, disk: Path | None = None, suite: str = "trixie") -> None:
        """Boot a disk of `installed`, or Debian as it is."""
        super().__init__(disk.name.split("-")[0] if disk else suite, disk)

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
        answers = self.path(f"{HOME}/current/service.toml").read_text()
        proxy = "apache" if 'proxy = "apache"' in answers else "nginx"
        done = self.deploy(f"{proxy}/apply")
        assert done.returncode == 0, done.stderr
        # After a mere reload the old workers answer for a moment more.
        self.run("systemctl", "restart", {"apache": "apache2"}.get(proxy, proxy))

    def connect(self, port: int = 443, source: str = "") -> "Connection":
        """Open a connection to the proxy, from one of the tests' addresses."""
        connection = Connection(self, port, source or self.visitor)
        connection.connect()
        return connection

    def ask(
        self, target: str, method: str = "GET", body: Any = None, **headers: str
    ) -> Answer:
        """Ask the proxy over https; `port="80"` asks it over http."""
        connection = self.connect(int(headers.pop("port", 443)))
        try:
            sent = {"Host": DOMAIN, "Connection": "close", **headers}
            connection.request(method, target, body, sent)
            response = connection.getresponse()
            said = response.read().decode(errors="replace")
            return Answer(response.status, dict(response.getheaders()), said)
        finally:
            connection.close()


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


class Load:
    """Visitors who ask all the time: `with Load(server) as load: …`, then look.

    Each has an address of its own, and asks as often as one may. A connection that was
    closed while idle is opened again for a GET, as browsers do; a POST has a new one.
    """

    PACE = 1 / 45  # seconds; nginx lets 50 requests through in one
    ASKED = ("/test/release", "/static/app.css", "/test/release", "POST", "/healthz")

    def __init__(
        self, server: Server, visitors: int = 6, targets: Sequence[str] = ASKED
    ) -> None:
        self.server, self.visitors, self.targets = server, visitors, targets
        self.answered = 0
        self.dropped: list[str] = []
        self.releases: set[str] = set()
        self.posted: list[str] = []
        self.slowest = 0.0
        self._over = threading.Event()
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        network = self.server.visitor.rpartition(".")[0]
        self._threads = []
        for number in range(self.visitors):
            address = f"{network}.{number + 20}"
            self._threads.append(threading.Thread(target=self._visit, args=[address]))
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(PATIENCE)

    def wait_for(self, more: int) -> None:
        """Return when so many more were answered or dropped."""
        begin, end = self.asked, time.monotonic() + PATIENCE
        while self.asked < begin + more:
            assert time.monotonic() < end, f"{self.asked - begin} of {more}"
            time.sleep(0.05)

    @property
    def asked(self) -> int:
        """How many requests have come to an end."""
        return self.answered + len(self.dropped)

    def _visit(self, address: str) -> None:
        connection: Connection | None = None
        for number, what in enumerate(itertools.cycle(self.targets)):
            if self._over.is_set():
                break
            begin = time.monotonic()
            try:
                if what == "POST":
                    status, _ = self._post(address, f"{address}/{number}")
                else:
                    connection = connection or self.server.connect(source=address)
                    try:
                        status, said = _exchange(connection, "GET", what)
                    except (ConnectionError, http.client.RemoteDisconnected):
                        connection = self.server.connect(source=address)
                        status, said = _exchange(connection, "GET", what)
                    if what == "/test/release" and status == 200:
                        self.releases.add(json.loads(said)["release"])
                fault = "" if status == 200 else str(status)
            except (OSError, http.client.HTTPException) as error:
                fault = repr(error)
                if connection:
                    connection.close()
                connection = None
            with self._lock:
                self.slowest = max(self.slowest, time.monotonic() - begin)
                if fault:
                    self.dropped.append(f"{what}: {fault}")
                else:
                    self.answered += 1
            time.sleep(max(0, begin + self.PACE - time.monotonic()))
        if connection:
            connection.close()

    def _post(self, address: str, text: str) -> tuple[int, bytes]:
        connection = self.server.connect(source=address)
        try:
            self.posted.append(text)
            return _exchange(connection, "POST", "/test/keep", text)
        finally:
            connection.close()


def _exchange(
    connection: Connection, method: str, target: str, body: Any = None
) -> tuple[int, bytes]:
    connection.request(method, target, body, {"Host": DOMAIN})
    response = connection.getresponse()
    return response.status, response.read()


def installed(
    factory: pytest.TempPathFactory,
    suite: str = "trixie",
    proxy: str = "nginx",
    **answers: Any,
) -> Path:
    """Return the disk of a server with the service, made when there is none yet."""
    shared = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    kind = "-".join([suite, proxy, *map(str, answers.values())])
    disk = shared / f"{kind}-disk"
    with (shared / f"{kind}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not disk.exists():
            shutil.rmtree(shared / kind, ignore_errors=True)  # of one that failed
            service = make_service(shared / kind, suite, proxy=proxy, **answers)
            with Server(suite=suite) as server:
                bring(server, service)
                done = server.install()
                assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
                server.keep(disk)
    return disk


def make_service(folder: Path, suite: str, **answers: Any) -> Path:
    """Make a service of the working tree, with its packages in uv's cache."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the working tree is not committed
        run_copy(
            str(ROOT),
            folder,
            ANSWERS | answers,
            vcs_ref="HEAD",
            defaults=True,
            unsafe=True,
            quiet=True,
        )
    with (folder / "app/views.py").open("a") as file:
        file.write(VIEWS)
    uv = os.environ["UV"]
    run(uv, "lock", "--quiet", cwd=folder)
    packages = folder.parent / f"{folder.name}-packages"
    export = ("export", "-q", "--locked", "--no-dev", "-o", packages / "locked.txt")
    packages.mkdir()
    run(uv, *export, cwd=folder)
    target = ("--target", packages, "--python-version", PYTHON[suite])
    for wanted in (packages / "locked.txt", "deploy/certbot/requirements.txt"):
        run(uv, "pip", "install", "-q", "--no-deps", *target, "-r", wanted, cwd=folder)
    shutil.rmtree(packages)
    return folder


def bring(server: Server, service: Path) -> None:
    """Do what comes before deploy/systemd/install: clone, and bring the settings."""
    settings = server.path("/root/.env.production")
    shutil.copy(service / ".env.production", settings)
    with settings.open("a") as file:
        file.write("APP_MAIL_URL=smtp://127.0.0.1:25\n")
    commit(service)
    server.copy(service, TEAM)
    server.write("/root/.gitconfig", "[user]\nname = Team\nemail = team@example.com\n")
    server.run("git", "-C", "/", "clone", "-q", TEAM, f"{HOME}/repository")
