"""A service of this template as it is deployed, for benchmarks that put load on it."""

import os
import socket
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import randrange
from ssl import create_default_context

from copier import run_copy

from tests.support.edge import ANSWERS, SLUG, Site
from tests.support.visitor import DOMAIN, Visitor

ROOT = Path(__file__).resolve().parents[2]


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


def fresh_address() -> str:
    """Return an address of this machine that probably nobody had."""
    return f"127.{randrange(1, 255)}.{randrange(256)}.{randrange(1, 255)}"


class Client(Visitor):
    """A client with a connection that stays open, from an address of this machine."""

    persistent = True

    def __init__(self, port: int, certificate: Path, address: str = "") -> None:
        super().__init__()
        self.port = port
        self.tls = create_default_context(cafile=str(certificate))
        self.move(address or fresh_address())

    def move(self, address: str) -> None:
        """Connect from another address from now on."""
        self.connection.close()
        self.address = address

    def connect(self, port: int = 443) -> socket.socket:
        plain = socket.create_connection(
            ("127.0.0.1", self.port), 30, source_address=(self.address, 0)
        )
        return self.tls.wrap_socket(plain, server_hostname=DOMAIN)
