"""Real servers for tests, each on a free port, in a folder of its own, ended by id."""

import fcntl
import json
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import Envelope

from tests.support.certificates import certify

# The commands of this environment first; servers lie outside an ordinary user's PATH.
PATH = os.pathsep.join(
    [
        str(Path(sys.executable).parent),
        os.environ["PATH"],
        *("/usr/sbin", "/sbin"),
        *map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)),
    ]
)
PATIENCE = 90
PORTS = range(10_000, 32_000)  # Linux gives clients those from 32,768
LAST_PORT = Path(tempfile.gettempdir(), f"bulwark-tests-port-{os.getuid()}")
T = TypeVar("T")


def free_port() -> int:
    """Return a port that no server has, and that nobody else is given meanwhile.

    All processes that run tests take them in turn, so that none gets the same twice.
    """
    with LAST_PORT.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        port = int(file.read() or PORTS[0])
        while True:
            port = port + 1 if port < PORTS[-1] else PORTS[0]
            with suppress(OSError), socket.create_server(("127.0.0.1", port)):
                break
        file.truncate(0)
        file.write(str(port))
    return port


def wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until something listens; fail if the process ended or takes too long."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        assert process.poll() is None, f"ended with {process.returncode}"
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise TimeoutError(f"nobody listens on port {port} after {PATIENCE} s")


def eventually(look: Callable[[], T | None], patience: float = PATIENCE) -> T:
    """Call a function until it returns something true, and return that.

    The calls take at most a quarter of the time: slow ones are repeated less often.
    """
    end = time.monotonic() + patience
    while (begin := time.monotonic()) < end:
        if found := look():
            return found
        time.sleep(min(max(0.02, 3 * (time.monotonic() - begin)), 1))
    raise TimeoutError(f"nothing after {patience} s")


def session(leader: int) -> list[int]:
    """Return what runs of what a process has started."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        if int(fields[3]) == leader and fields[0] not in "ZX":
            found.append(int(folder.name))
    return found


def end_session(leader: int) -> None:
    """Kill all that a process has started, as when the machine loses its power."""
    for process in session(leader):
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    eventually(lambda: not session(leader))


class Postgres:
    """A PostgreSQL cluster: `with Postgres() as server: server.database()`."""

    def __init__(self, *initdb: str) -> None:
        self.initdb = initdb

    def __enter__(self) -> Self:
        self.folder = Path(tempfile.mkdtemp(prefix="bulwark-postgres-"))
        # PostgreSQL refuses to run as root.
        self.user = "postgres" if os.geteuid() == 0 else None
        if self.user:
            account = pwd.getpwnam(self.user)
            os.chown(self.folder, account.pw_uid, account.pw_gid)
        self.port = free_port()
        self.call(
            "initdb", "-D", "data", "-U", "postgres", "-A", "trust", "-N", *self.initdb
        )
        self._start()
        return self

    def _start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(self.find("postgres"), "-D", "data", "-p", str(self.port)),
                    *("-h", "127.0.0.1", "-k", "", "-c", "fsync=off"),
                    *("-c", "max_connections=200"),
                ],
                cwd=self.folder,
                user=self.user,
                group=self.user,
                extra_groups=[] if self.user else None,
                stdout=log,
                stderr=log,
            )
        wait_for_port(self.port, self.process)

    def _stop(self) -> None:
        self.process.send_signal(signal.SIGINT)
        self.process.wait(PATIENCE)

    @contextmanager
    def away(self) -> Iterator[None]:
        """Be stopped while the block lasts."""
        self._stop()
        try:
            yield
        finally:
            self._start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()
        shutil.rmtree(self.folder)

    def database(self) -> str:
        """Make an empty database; return its URL."""
        name = f"test_{secrets.token_hex(4)}"
        address = ("-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres")
        self.call("createdb", *address, name)
        return f"postgresql://postgres@127.0.0.1:{self.port}/{name}"

    def call(self, command: str, *arguments: str) -> None:
        subprocess.run(
            [self.find(command), *arguments],
            cwd=self.folder,
            user=self.user,
            group=self.user,
            extra_groups=[] if self.user else None,
            check=True,
            capture_output=True,
        )

    @staticmethod
    def find(command: str) -> str:
        found = shutil.which(command, path=PATH)
        assert found, f"{command} is not installed"
        return found


@contextmanager
def running(
    *command: str | Path, log: Path, **options: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server while the block lasts; `log` gets its stdout, `log`.err the rest."""
    with log.open("ab") as stdout, log.with_suffix(".err").open("ab") as stderr:
        process = subprocess.Popen(command, stdout=stdout, stderr=stderr, **options)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


class Mailbox:
    """An SMTP server that keeps what it is given: `with Mailbox().running(): …`."""

    def __init__(self) -> None:
        self.port = free_port()
        self.messages: list[EmailMessage] = []

    async def handle_DATA(self, _: Any, __: Any, envelope: Envelope) -> str:  # noqa: N802
        self.messages.append(
            message_from_bytes(envelope.original_content or b"", policy=default)
        )
        return "250 OK"

    @contextmanager
    def running(self) -> Iterator[Self]:
        self.controller = self._start()
        try:
            yield self
        finally:
            self.controller.stop()

    @contextmanager
    def away(self) -> Iterator[None]:
        """Refuse connections while the block lasts."""
        self.controller.stop()
        try:
            yield
        finally:
            self.controller = self._start()

    def _start(self) -> Controller:
        controller = Controller(self, hostname="127.0.0.1", port=self.port)
        controller.start()
        return controller

    def link_to(self, recipient: str) -> str | None:
        """Return the path of the link in the first email to an address."""
        for received in self.messages:
            text = received.get_body(("plain",))
            if received["To"] == recipient and text:
                found = re.search(r"https://[^/\s]+(/\S+)", text.get_content())
                return found[1] if found else None
        return None


class Nginx:
    """nginx with the site of a service, of which only paths and ports are replaced.

    `ports` maps the port that a file names to the one in use; `certificate` is what
    clients have to trust; `socket` is where the service is expected.
    """

    def __init__(self, service: Path, domain: str, slug: str, folder: Path) -> None:
        self.folder, self.config = folder, folder / "nginx.conf"
        self.socket = folder / "run/web.sock"
        self.certificate = folder / "live/fullchain.pem"
        self.access_log, self.error_log = folder / "access.log", folder / "error.log"
        self.maintenance = folder / "maintenance"
        self.ports = {80: free_port(), 443: free_port()}
        for name in ("run", "live", "www/.well-known/acme-challenge"):
            (folder / name).mkdir(parents=True)
        certify(domain, self.certificate, folder / "live/privkey.pem")
        # What Debian's nginx.conf sets and the site has to override.
        self.config.write_text(f"""
            {"user root;" if os.geteuid() == 0 else ""}
            pid {folder}/nginx.pid;
            error_log {folder}/other.log;
            worker_processes 2;
            events {{}}
            http {{
                include /etc/nginx/mime.types;
                default_type application/octet-stream;
                ssl_protocols TLSv1 TLSv1.1 TLSv1.2 TLSv1.3;
                ssl_prefer_server_ciphers on;
                gzip on;
                access_log {folder}/other.log;
                client_body_temp_path {folder}/body;
                proxy_temp_path {folder}/proxy;
                fastcgi_temp_path {folder}/fastcgi;
                scgi_temp_path {folder}/scgi;
                uwsgi_temp_path {folder}/uwsgi;
                include {folder}/conf.d/*.conf;
            }}
        """)
        self.service = folder / "service"
        for part in ("deploy/nginx", "app/nginx"):
            shutil.copytree(service / part, self.service / part)
        shutil.copy(service / "service.toml", self.service)
        shutil.copy(service / "deploy/common.sh", self.service / "deploy")
        # Ports first: the folder that replaces a path may have "80" in its name.
        moved = {}
        for port, free in self.ports.items():
            moved[f"[::]:{port}"] = f"[::1]:{free}"
            moved[f"{port}"] = f"127.0.0.1:{free}"
        moved |= {
            f"/srv/{slug}/current/public": f"{service}/public",
            f"/srv/{slug}/current/": f"{folder}/",
            f"/etc/letsencrypt/live/{domain}/": f"{folder}/live/",
            "/var/log/nginx/": f"{folder}/",
            "/var/www/letsencrypt": f"{folder}/www",
            f"/run/{slug}.maintenance": f"{self.maintenance}",
        }
        files = filter(Path.is_file, (self.service / "deploy/nginx").iterdir())
        for path in files:
            text = path.read_text()
            for there, here in moved.items():
                text = re.sub(rf"(?<!\w){re.escape(there)}(?!\d)", here, text)
            path.write_text(text)
        self.apply()

    def apply(self, etc: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Bring the site into this nginx, or one whose configuration is elsewhere."""
        return subprocess.run(
            [self.service / "deploy/nginx/apply"],
            env={"NGINX_ETC": str(etc or self.folder), "PATH": PATH},
            capture_output=True,
            text=True,
            check=False,
        )

    def requests(self) -> list[dict[str, Any]]:
        """Return the lines of the access log."""
        return [json.loads(line) for line in self.access_log.read_text().splitlines()]

    def logs(self) -> list[Path]:
        return [
            path for path in self.folder.glob("*") if path.suffix in (".log", ".err")
        ]

    @contextmanager
    def running(self) -> Iterator[Self]:
        command = ("nginx", "-e", "stderr", "-c", self.config, "-g", "daemon off;")
        with running(*command, log=self.folder / "nginx") as self.process:
            wait_for_port(self.ports[443], self.process)
            yield self

    def serve(self, domain: str, left: float) -> None:
        """Take a certificate of whose life a share is left."""
        certify(domain, self.certificate, self.folder / "live/privkey.pem", left=left)
        self.process.send_signal(signal.SIGHUP)
