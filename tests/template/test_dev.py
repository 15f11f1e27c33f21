"""bin/dev: serves what is written, and goes on when somebody mends a mistake."""

import os
import pty
import re
import shutil
import socket
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from threading import Thread

import pytest

from tests.support.servers import PATIENCE, free_port

PAGE_THAT_STOPS = """

@blueprint.get("/stop")
@public
def stop() -> str:
    word = "unsaid"
    breakpoint()
    return word
"""
PAGE_WITH_A_LINK = """

@blueprint.get("/link")
@public
def link() -> str:
    from bulwark import mail

    return mail.link("app.home")
"""


class Dev:
    """bin/dev in a terminal of its own."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port
        self.terminal, theirs = pty.openpty()
        self.process = subprocess.Popen(
            ["bin/dev", "--port", str(port)],
            cwd=folder,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        self.raw = b""
        Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        with suppress(OSError):  # The terminal is gone when all of its processes are.
            while piece := os.read(self.terminal, 4096):
                self.raw += piece

    @property
    def output(self) -> str:
        return re.sub(r"\x1b\[[\d;]*m", "", self.raw.decode(errors="replace"))

    def get(self, path: str) -> str:
        address = f"https://localhost:{self.port}{path}"
        trust = ssl.create_default_context(
            cafile=self.folder / "instance/tls/authority.pem"
        )
        with urllib.request.urlopen(address, context=trust, timeout=PATIENCE) as page:
            return str(page.read().decode())

    def serves(self) -> bool:
        with suppress(OSError):
            return bool(self.get("/healthz"))
        return False

    def wait_for(self, what: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE
        while not what():
            assert time.monotonic() < end, self.output
            time.sleep(0.2)

    def workers(self) -> int:
        return self.output.count("part=worker") - 2 * self.output.count("sys_shutdown")

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(PATIENCE)


@pytest.fixture
def service(ready: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "service"
    shutil.copytree(ready, folder, symlinks=True, ignore=lambda *_: [".venv"])
    (folder / ".venv").symlink_to(ready / ".venv")
    return folder


@pytest.fixture
def dev(service: Path) -> Iterator[Dev]:
    dev = Dev(service, free_port())
    try:
        dev.wait_for(dev.serves)
        yield dev
    finally:
        dev.stop()


def test_links_in_emails_lead_to_the_port_that_is_served(dev: Dev) -> None:
    with (dev.folder / "app/views.py").open("a") as views:
        views.write(PAGE_WITH_A_LINK)

    def leads_here() -> bool:
        with suppress(OSError):
            return dev.get("/link") == f"https://localhost:{dev.port}/"
        return False

    dev.wait_for(leads_here)


def test_what_is_typed_reaches_a_breakpoint(dev: Dev) -> None:
    with (dev.folder / "app/views.py").open("a") as views:
        views.write(PAGE_THAT_STOPS)
    pages: list[str] = []

    def visit() -> None:
        while not pages:
            with suppress(OSError):
                pages.append(dev.get("/stop"))
            time.sleep(0.2)

    Thread(target=visit, daemon=True).start()
    dev.wait_for(lambda: "(Pdb)" in dev.output)
    os.write(dev.terminal, b"word = 'said'\ncontinue\n")
    dev.wait_for(lambda: bool(pages))
    assert pages == ["said"]


def test_both_start_again_when_code_changes(dev: Dev) -> None:
    dev.wait_for(lambda: dev.workers() == 1)
    (dev.folder / "app/models.py").touch()
    dev.wait_for(lambda: dev.output.count("sys_shutdown") == 1 and dev.workers() == 1)
    dev.wait_for(lambda: dev.output.count("Debugger is active") == 2)


def test_it_continues_when_a_bad_setting_is_fixed(dev: Dev) -> None:
    env = dev.folder / ".env"
    good = env.read_text()
    dev.wait_for(lambda: dev.workers() == 1)
    env.write_text(f"{good}\nAPP_LOG_LEVEL=LOUD\n")
    dev.wait_for(lambda: "restarts when you save" in dev.output)
    dev.wait_for(lambda: not dev.serves())
    dev.wait_for(lambda: dev.output.count("APP_LOG_LEVEL can't be used") == 2)
    time.sleep(2)  # long enough to start once more, as each part did each second
    assert dev.output.count("APP_LOG_LEVEL can't be used") == 2, "once for each part"
    env.write_text(good)
    dev.wait_for(dev.serves)
    dev.wait_for(lambda: dev.workers() == 1)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_port_of_somebody_else_is_not_announced(service: Path, host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as taken:
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            ["bin/dev", "--port", port],
            cwd=service,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    assert done.returncode == 1
    assert f"uses port {port}" in done.stderr
    assert done.stdout == ""
