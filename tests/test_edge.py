"""A service as it is deployed: gunicorn and its worker behind nginx, mail by SMTP."""

import http.client
import json
import os
import re
import shutil
import socket
import sqlite3
import ssl
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from email import message_from_bytes
from email.policy import default
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import Envelope
from compose_spec import PyCompose
from copier import run_copy

from tests.conftest import ROOT, run
from tests.servers import PATIENCE, Nginx, free_port, running
from tests.test_extend import NGINX
from tests.test_extend import Service as Team

pytestmark = pytest.mark.needs("nginx")

DOMAIN, SLUG = "shop.bulwark-tests.net", "edge-test"
PASSWORD = "eleven-purple-tractors-sing"
# What every answer carries exactly once, over TLS.
SECURITY_HEADERS = {
    "Content-Security-Policy",
    "Cross-Origin-Embedder-Policy",
    "Cross-Origin-Opener-Policy",
    "Cross-Origin-Resource-Policy",
    "Permissions-Policy",
    "Referrer-Policy",
    "Strict-Transport-Security",
    "X-Content-Type-Options",
    "X-Frame-Options",
    "X-Request-ID",
}
# The team's half: a view that tells what reached it, one that fails, nginx locations.
VIEWS = """

@blueprint.route("/test/seen", methods=["GET", "PUT"])
@public
def seen() -> ResponseReturnValue:
    from flask import request

    return {
        "address": request.remote_addr,
        "secure": request.is_secure,
        "host": request.host,
        "headers": dict(request.headers),
    }


@blueprint.get("/test/broken")
@public
def broken() -> ResponseReturnValue:
    password = "{password}"
    raise RuntimeError(f"the letters of it are {{len(password)}}")
"""
LOCATIONS = """
location /test/files/ {{
    alias {service}/app/static/;
}}
location = /test/upload {{
    client_max_body_size 2m;
    proxy_pass http://{slug}/test/seen;
}}
location = /test/own-header {{
    add_header X-Own yes always;
    include {service}/deploy/nginx/headers.conf;
    return 204;
}}
"""


class Answer(NamedTuple):
    status: int
    headers: list[tuple[str, str]]
    body: str

    def __getitem__(self, name: Any) -> Any:
        """Return the one value of a header, None if it is not there."""
        values = [v for k, v in self.headers if k.lower() == str(name).lower()]
        assert len(values) < 2, f"{name} more than once: {values}"
        return values[0] if values else None


class Client:
    """Somebody far away; knows the server's address, and may lie about all else."""

    def __init__(self, nginx: Nginx) -> None:
        self.nginx = nginx
        self.cookies: dict[str, str] = {}

    def connect(
        self, port: int = 443, name: str | None = DOMAIN, **options: Any
    ) -> socket.socket:
        plain = socket.create_connection(("127.0.0.1", self.nginx.ports[port]), PATIENCE)
        if port != 443:
            return plain
        context = ssl.create_default_context(cafile=self.nginx.certificate)
        context.check_hostname = name is not None
        for option, value in options.items():
            getattr(context, option)(value) if callable(
                getattr(context, option)
            ) else setattr(context, option, value)
        return context.wrap_socket(plain, server_hostname=name)

    def ask(
        self,
        target: str,
        method: str = "GET",
        body: Any = None,
        *,
        port: int = 443,
        **headers: str,
    ) -> Answer:
        """Send one request; `X_Name` becomes the header X-Name."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        sent = {"Host": DOMAIN, "Referer": f"https://{DOMAIN}/", **sent}
        if self.cookies:
            sent["Cookie"] = "; ".join(f"{k}={v}" for k, v in self.cookies.items())
        connection = http.client.HTTPConnection(DOMAIN)
        connection.sock = self.connect(port)
        connection.request(method, target, body, sent)
        response = connection.getresponse()
        answer = Answer(
            response.status, response.getheaders(), response.read().decode()
        )
        connection.close()
        for name, value in answer.headers:
            if name.lower() == "set-cookie":
                key, _, rest = value.partition("=")
                self.cookies[key] = rest.partition(";")[0]
        return answer

    def send(self, path: str, **fields: str) -> Answer:
        """Fill in the form of a page, as a browser does."""
        from urllib.parse import urlencode

        page = self.ask(path)
        token = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', page.body)
        assert token, page.body
        return self.ask(
            path,
            "POST",
            urlencode({"csrf_token": token[1], **fields}),
            Content_Type="application/x-www-form-urlencoded",
        )

    def talk(self, *lines: str, port: int = 443) -> bytes:
        """Send bytes as they are; return all that comes back."""
        with self.connect(port) as connection:
            connection.sendall("\r\n".join([*lines, "", ""]).encode())
            return b"".join(iter(lambda: connection.recv(65536), b""))


class Mails:
    """A real SMTP server; keeps what it is given."""

    def __init__(self) -> None:
        self.port = free_port()
        self.letters: list[Any] = []

    async def handle_DATA(self, _: Any, __: Any, envelope: Envelope) -> str:  # noqa: N802
        letter = message_from_bytes(bytes(envelope.content or b""), policy=default)
        self.letters.append(letter)
        return "250 OK"

    @contextmanager
    def running(self) -> Iterator[None]:
        controller = Controller(self, hostname="127.0.0.1", port=self.port)
        controller.start()
        yield
        controller.stop()

    def link_to(self, recipient: str, patience: float = PATIENCE) -> str:
        """Wait for a mail; return the path of the link in it."""

        def arrived() -> str | None:
            for letter in self.letters:
                if letter["To"] == recipient:
                    text = letter.get_body(("plain",)).get_content()
                    found = re.search(rf"https://{re.escape(DOMAIN)}(/\S+)", text)
                    assert found, text
                    return found[1]
            return None

        return eventually(arrived, patience)


def eventually[T](look: Callable[[], T | None], patience: float = PATIENCE) -> T:
    end = time.monotonic() + patience
    while time.monotonic() < end:
        if found := look():
            return found
        time.sleep(0.1)
    raise TimeoutError(f"nothing after {patience} s")
