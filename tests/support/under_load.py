"""A service of this template as it is deployed, for benchmarks that put load on it."""

import http.client
import os
import re
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import randrange
from ssl import create_default_context
from urllib.parse import urlencode

from copier import run_copy

from tests.support.edge import ANSWERS, DOMAIN, SLUG, Site

ROOT = Path(__file__).resolve().parents[2]
FORM = "application/x-www-form-urlencoded"


@contextmanager
def running_site() -> Iterator[Site]:
    """Run nginx, gunicorn, worker, mail server; the first argument may be a .venv."""
    with tempfile.TemporaryDirectory(prefix="bulwark-load-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        service = folder / SLUG
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the working tree is not committed
            run_copy(
                str(ROOT),
                service,
                ANSWERS,
                vcs_ref="HEAD",
                defaults=True,
                unsafe=True,
                quiet=True,
            )
        if len(sys.argv) > 1:
            (service / ".venv").symlink_to(Path(sys.argv[1]).resolve())
        else:
            uv = os.environ.get("UV", "uv")
            sync = [uv, "sync", "--quiet", "--no-dev"]
            subprocess.run(sync, cwd=service, check=True)
        (folder / "site").mkdir()
        with Site(service, folder / "site").running() as site:
            yield site


class Connection(http.client.HTTPConnection):
    """A connection over TLS to the service, from an address of this machine."""

    def __init__(self, port: int, certificate: Path, address: str) -> None:
        super().__init__("127.0.0.1", port, timeout=30, source_address=(address, 0))
        self.tls = create_default_context(cafile=str(certificate))

    def connect(self) -> None:
        """Connect; also anew, when nginx has closed the last one."""
        super().connect()
        self.sock = self.tls.wrap_socket(self.sock, server_hostname=DOMAIN)


def fresh_address() -> str:
    """Return an address of this machine that probably nobody had."""
    return f"127.{randrange(1, 255)}.{randrange(256)}.{randrange(1, 255)}"


class Client:
    """Somebody with a browser and a connection that stays open."""

    def __init__(self, port: int, certificate: Path, address: str = "") -> None:
        self.port, self.certificate = port, certificate
        self.cookie = self.token = ""
        self.move(address or fresh_address())

    def move(self, address: str) -> None:
        """Connect from another address."""
        self.connection = Connection(self.port, self.certificate, address)

    def ask(self, path: str, **fields: str) -> tuple[int, str]:
        """Open a page, or send its form; return the status and the page."""
        headers = {"Host": DOMAIN, "Cookie": self.cookie}
        body = None
        if fields:
            headers |= {"Referer": f"https://{DOMAIN}{path}", "Content-Type": FORM}
            body = urlencode({"csrf_token": self.token, **fields})
        self.connection.request("POST" if fields else "GET", path, body, headers)
        answer = self.connection.getresponse()
        text = answer.read().decode()
        self.keep(answer.getheaders())
        if found := re.search(r'name="csrf_token"[^>]* value="([^"]+)"', text):
            self.token = found[1]
        return answer.status, text

    def keep(self, headers: list[tuple[str, str]]) -> None:
        """Keep the first cookie that an answer sets."""
        if cookie := dict(reversed(headers)).get("Set-Cookie"):
            self.cookie = cookie.partition(";")[0]
