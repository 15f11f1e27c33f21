"""Tracing as docs/tracing.md has it: traces arrive, and name nobody and no path."""

import os
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tests.conftest import ROOT, run
from tests.support.clients import Browser
from tests.support.servers import eventually
from tests.support.watched import Watched, make_service


class Collector(HTTPServer):
    """Keeps what it is sent."""

    def __init__(self) -> None:
        self.sent = b""
        super().__init__(("127.0.0.1", 0), Inbox)


class Inbox(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        self.server.sent += self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Stay silent."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def follow_the_page(service: Path) -> None:
    """Do in a service what docs/tracing.md describes."""
    page = (ROOT / "template/docs/tracing.md").read_text()
    add, module, setting, call, _ = re.findall(r"(?s)```\w*\n(.*?)```", page)
    words = add.replace("\\\n", "").split()[1:]
    run(os.environ["UV"], *words, "--quiet", cwd=service)
    (service / "app/tracing.py").write_text(module)
    settings, app = service / "app/settings.py", service / "app/__init__.py"
    imported = "from bulwark import setting\n\n\n@dataclass"
    text = settings.read_text().replace("\n@dataclass", imported, 1)
    docstring = '`bulwark.setting`."""\n'
    settings.write_text(text.replace(docstring, f"{docstring}\n{setting}"))
    text = app.read_text().replace("settings, views", "settings, tracing, views")
    app.write_text(text.replace("    return app", f"{call}    return app"))
    checked = [settings, app, service / "app/tracing.py"]
    run(str(ROOT / ".venv/bin/ruff"), "check", *map(str, checked), cwd=service)


def test_traces_arrive_and_name_no_path_and_nobody(
    template: Path, tmp_path: Path, collector: Collector
) -> None:
    service = make_service(template, tmp_path)
    follow_the_page(service)
    watched = Watched(tmp_path)
    watched.set("TRACES_URL", f"http://127.0.0.1:{collector.server_port}")
    with watched.running():
        stranger = Browser(watched)
        stranger.ask("/reset/turquoise-canary?q=more-canary", User_Agent="Canary/7")
        stranger.fill_in("/login", email="zoe@bulwark-tests.net", password="canary")
        eventually(lambda: b"INSERT" in collector.sent, 20)
    assert b"GET /reset/<token>" in collector.sent
    for secret in ("canary", "Canary", "zoe", stranger.address):
        assert secret.encode() not in collector.sent
