"""A service as it is deployed: nginx, gunicorn, worker, SMTP; and its visitors."""

import http.client
import json
import os
import re
import socket
import ssl
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

from tests.conftest import run
from tests.support.servers import PATIENCE, Mailbox, Nginx, eventually, running

DOMAIN, SLUG = "shop.bulwark-tests.net", "edge-test"
ADDRESS, PASSWORD = "jo@bulwark-tests.net", "eleven-purple-tractors-sing"
ANSWERS = {"project_name": "Edge Test", "domain": DOMAIN}
# What a process finds on a server: no variable of whoever runs the tests.
ENVIRONMENT = {"APP_ENV": "production", "PATH": os.environ["PATH"]}
# What every answer over TLS carries, exactly once.
SECURITY_HEADERS = {
    "content-security-policy",
    "cross-origin-embedder-policy",
    "cross-origin-opener-policy",
    "cross-origin-resource-policy",
    "permissions-policy",
    "referrer-policy",
    "strict-transport-security",
    "x-content-type-options",
    "x-frame-options",
    "x-request-id",
}


class Answer(NamedTuple):
    status: int
    headers: list[tuple[str, str]]
    body: str

    def header(self, name: str) -> str | None:
        values = [value for key, value in self.headers if key.lower() == name.lower()]
        assert len(values) < 2, f"{name} came more than once: {values}"
        return values[0] if values else None

    @property
    def security(self) -> dict[str, str]:
        """Return the security headers, each of which came once."""
        return {name: self.header(name) or "" for name in self.count_security()}

    def count_security(self) -> Counter[str]:
        names = Counter(key.lower() for key, _ in self.headers)
        return Counter({n: c for n, c in names.items() if n in SECURITY_HEADERS})


class Visitor:
    """Somebody far away, who may say anything to the ports of the server."""

    def __init__(self, nginx: Nginx) -> None:
        self.nginx = nginx
        self.cookies: dict[str, str] = {}

    def connect(
        self, name: str | None = DOMAIN, port: int = 443, **settings: Any
    ) -> socket.socket:
        """Connect, over TLS to a server of that name; settings are the context's."""
        plain = socket.create_connection(
            ("127.0.0.1", self.nginx.ports[port]), PATIENCE
        )
        if port != 443:
            return plain
        context = ssl.create_default_context(cafile=str(self.nginx.certificate))
        context.check_hostname = name is not None
        for setting, value in settings.items():
            setattr(context, setting, value)
        context.set_alpn_protocols(["h2"] if settings else ["http/1.1"])
        return context.wrap_socket(plain, server_hostname=name)

    def ask(
        self, target: str, method: str = "GET", body: Any = None, **headers: Any
    ) -> Answer:
        """Send a request, over TLS unless the port is 80; `X_Name` names X-Name."""
        port = headers.pop("port", 443)
        sent = {"Host": DOMAIN, "Referer": f"https://{DOMAIN}/", "Connection": "close"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        if self.cookies:
            sent["Cookie"] = "; ".join(f"{k}={v}" for k, v in self.cookies.items())
        with self.connect(port=port) as stream:
            answer = exchange(stream, method, target, body, sent)
        for name, value in answer.headers:
            if name.lower() == "set-cookie":
                key, _, rest = value.partition("=")
                self.cookies[key] = rest.partition(";")[0]
        return answer

    def say(self, *lines: str, port: int = 443) -> bytes:
        """Send lines as they are; return all that comes back."""
        with self.connect(port=port) as stream:
            stream.sendall("\r\n".join([*lines, "", ""]).encode())
            return b"".join(iter(lambda: stream.recv(65536), b""))

    def fill_in(self, path: str, **fields: str) -> Answer:
        """Send the form of a page."""
        page = self.ask(path)
        token = re.search(r'name="csrf_token"[^>]* value="([^"]+)"', page.body)
        assert token, page.body
        body = urlencode({"csrf_token": token[1], **fields})
        kind = "application/x-www-form-urlencoded"
        return self.ask(path, "POST", body, Content_Type=kind)


def exchange(
    stream: socket.socket, method: str, target: str, body: Any, headers: dict[str, str]
) -> Answer:
    connection = http.client.HTTPConnection(DOMAIN)
    connection.sock = stream
    connection.request(method, target, body, headers)
    response = connection.getresponse()
    return Answer(response.status, response.getheaders(), response.read().decode())


class Site:
    """A service in production, run as deploy/ runs it; `folder` holds what they log."""

    def __init__(self, service: Path, folder: Path) -> None:
        self.service, self.folder = service, folder
        self.nginx = Nginx(service, DOMAIN, SLUG, folder / "nginx")
        self.mailbox = Mailbox()
        self.settings = service / ".env.production"
        with self.settings.open("a") as file:
            file.write(f"APP_MAIL_URL=smtp://127.0.0.1:{self.mailbox.port}\n")

    def run(self, command: str, log: str) -> AbstractContextManager[Any]:
        program, *arguments = command.split()
        return running(
            self.service / ".venv/bin" / program,
            *arguments,
            log=self.folder / log,
            cwd=self.service,
            env=ENVIRONMENT | {"HOME": str(self.folder / "home")},
        )

    @contextmanager
    def running(self) -> Iterator["Site"]:
        with (
            self.mailbox.running(),
            self.run("flask --app wsgi prepare", "prepare") as prepare,
        ):
            assert prepare.wait() == 0, (self.folder / "prepare.err").read_text()
            with (
                self.run(f"gunicorn --bind=unix:{self.nginx.socket}", "web") as web,
                self.run("flask --app wsgi worker", "worker"),
                self.nginx.running(),
            ):
                eventually(lambda: web.poll() is not None or self.nginx.socket.exists())
                assert web.poll() is None, (self.folder / "web.err").read_text()
                yield self

    def lines(self, log: str) -> list[dict[str, Any]]:
        text = (self.folder / log).read_text()
        return [json.loads(line) for line in text.splitlines()]

    def all_that_is_logged(self) -> str:
        logs = [path for path in self.folder.glob("*") if path.is_file()]
        return "\n".join(p.read_text() for p in [*logs, *self.nginx.logs()])


def collect(service: Path) -> None:
    """Write what nginx serves by itself."""
    flask = (service / ".venv/bin/flask", "--app", "wsgi")
    testing = ENVIRONMENT | {"APP_ENV": "testing"}
    run(*flask, "collect", "public", cwd=service, env=testing)
