"""What PyPI knows of packages, reached through a proxy as in a company.

with Pypi(folder).running() as environment: ...  # what a command needs to reach it
"""

import http.server
import json
import os
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import trustme

from tests.support.certificates import issue

HOLE = {
    "id": "PYSEC-2026-1",
    "aliases": ["CVE-2026-0001"],
    "details": "It lets everybody in.",
    "fixed_in": ["2.0"],
}


class Pypi:
    """The packages that PyPI has: `vulnerable` ones, and those it does `withhold`."""

    def __init__(self, folder: Path) -> None:
        self.authority = folder / "authority.pem"
        certificate, key = folder / "pypi.pem", folder / "pypi.key"
        proxy = trustme.CA()
        proxy.cert_pem.write_to_path(self.authority)
        issue(proxy, "pypi.org", certificate, key)
        self.trust = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.trust.load_cert_chain(certificate, key)
        self.has: dict[str, list[str]] = {}
        self.vulnerable: set[str] = set()
        self.withheld: set[str] = set()

    def answer(self, path: str) -> dict[str, Any] | None:
        """Return what it answers at /pypi/NAME/json or /pypi/NAME/VERSION/json."""
        name, *version = path.removeprefix("/pypi/").removesuffix("/json").split("/")
        if not version:
            known = self.has.get(name)
            return known and {"releases": {one: [] for one in known}}  # type: ignore[return-value]
        if version[0] not in self.has.get(name, []) or name in self.withheld:
            return None
        return {"vulnerabilities": [HOLE] if name in self.vulnerable else []}

    @contextmanager
    def running(self) -> Iterator[dict[str, str]]:
        pypi = self

        class Proxy(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_CONNECT(self) -> None:
                assert self.path == "pypi.org:443"
                self.send_response(200)
                self.end_headers()
                self.finish()
                self.connection = pypi.trust.wrap_socket(
                    self.connection, server_side=True
                )
                self.rfile = self.connection.makefile("rb")
                self.wfile = self.connection.makefile("wb", 0)
                self.close_connection = False

            def finish(self) -> None:
                super().finish()
                if isinstance(self.connection, ssl.SSLSocket):
                    self.connection.close()

            def do_GET(self) -> None:
                found = pypi.answer(self.path)
                body = json.dumps(found).encode()
                self.send_response(200 if found else 404)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server:
            thread = threading.Thread(target=server.serve_forever, args=[0.05])
            thread.start()
            try:
                yield os.environ | {
                    "HTTPS_PROXY": f"http://127.0.0.1:{server.server_port}",
                    "https_proxy": f"http://127.0.0.1:{server.server_port}",
                    "NO_PROXY": "",
                    "no_proxy": "",
                    "REQUESTS_CA_BUNDLE": str(self.authority),
                }
            finally:
                server.shutdown()
                thread.join()
