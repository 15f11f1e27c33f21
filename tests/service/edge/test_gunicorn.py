"""gunicorn: its socket, its health and its restarts."""

import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.support.edge import ENVIRONMENT, EdgeVisitor, Site
from tests.support.servers import PATIENCE, running
from tests.support.visitor import (
    Response,
    exchange,
)

pytestmark = pytest.mark.needs("nginx")


def test_settings_that_are_refused_end_gunicorn_with_the_reason(
    site: Site, tmp_path: Path
) -> None:
    settings = tmp_path / ".env.production"
    lines = site.settings.read_text().splitlines()
    settings.write_text("\n".join(x for x in lines if "PEPPER" not in x))
    settings.chmod(0o600)
    begin = time.monotonic()
    done = subprocess.run(
        [site.service / ".venv/bin/gunicorn", f"--bind=unix:{tmp_path}/socket"],
        cwd=site.service,
        env=ENVIRONMENT | {"ENV_FILE": str(settings)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    took = time.monotonic() - begin
    assert done.returncode == 3
    assert "APP_PASSWORD_PEPPER is missing" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert took < 10, "2 s on a machine that does nothing else"


def test_the_socket_is_for_the_owner_and_his_group(site: Site) -> None:
    assert site.nginx.socket.stat().st_mode & 0o777 == 0o770


def test_gunicorn_opens_no_other_way_in(site: Site) -> None:
    assert not (site.folder / "home").exists()
    assert {p.name for p in site.nginx.socket.parent.iterdir()} == {"web.sock"}


def ask_by_socket(address: Path, target: str, **headers: str) -> Response:
    with socket.socket(socket.AF_UNIX) as stream:
        stream.settimeout(PATIENCE)
        stream.connect(str(address))
        return exchange(stream, "GET", target, None, headers)


def test_gunicorn_itself_trusts_no_header(site: Site) -> None:
    """It trusts what reaches its socket; bulwark.web.proxy decides what to trust."""
    over_tls = {"X-Forwarded-Proto": "https"}
    for name in ("SCRIPT_NAME", "PATH_INFO", "X_Real_IP"):
        lie = {name: "/evil"}
        answer = ask_by_socket(site.nginx.socket, "/test/seen", **over_tls, **lie)
        assert answer.status == 200
        assert "evil" not in answer.body
    lie = {"X-Forwarded-Ssl": "on"}
    assert ask_by_socket(site.nginx.socket, "/login", **lie).status == 301


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_health_checks_may_name_any_host(
    site: Site, visitor: EdgeVisitor, path: str
) -> None:
    """nginx can't: it does not know for which of its services another host stands."""
    assert ask_by_socket(site.nginx.socket, path, Host="10.1.2.3").status == 200
    assert ask_by_socket(site.nginx.socket, "/login", Host="10.1.2.3").status == 400
    assert visitor.ask(path, Host="10.1.2.3").status == 421


def test_a_restart_refuses_no_request(site: Site, tmp_path: Path) -> None:
    """systemd holds the socket, so who comes meanwhile waits in it."""
    address = tmp_path / "web.sock"
    begin = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ |= {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid())}
os.execv(sys.argv[2], sys.argv[2:])
"""

    def ask() -> None:
        over_tls = {"X-Forwarded-Proto": "https"}
        answers.append(ask_by_socket(address, "/healthz", **over_tls).status)

    answers: list[int] = []
    with socket.socket(socket.AF_UNIX) as held:
        held.bind(str(address))
        held.listen()
        for start in (1, 2):
            early = threading.Thread(target=ask)
            early.start()
            with running(
                *(sys.executable, "-c", begin, str(held.fileno())),
                site.service / ".venv/bin/gunicorn",
                log=tmp_path / "web",
                cwd=site.service,
                env=ENVIRONMENT,
                pass_fds=[held.fileno()],
            ):
                early.join()
                assert answers == [200] * start
                time.sleep(1)  # gunicorn misses a SIGTERM while it forks workers
            assert address.exists()
