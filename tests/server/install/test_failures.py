"""Killed processes, unreachable hosts and rotated logs."""

import gzip
import re

import pytest

from tests.support.deployed import HOME, NAME, Server
from tests.support.installed import show, web
from tests.support.load import Load
from tests.support.machine import NEEDS_MACHINE
from tests.support.servers import eventually

pytestmark = NEEDS_MACHINE


def wait_for_next(server: Server, unit: str, before: str) -> None:
    """Return when a unit runs in a process other than before."""
    eventually(lambda: show(server, unit, "MainPID") not in ("0", before))
    eventually(lambda: show(server, unit, "ActiveState") == "active")


@pytest.mark.parametrize("which", ["main", "all"])
def test_gunicorn_killed_under_load_loses_only_what_it_was_at(
    server: Server, which: str
) -> None:
    unit, visitors = web(server), 6
    with Load(server, visitors) as load:
        load.wait_for(200)
        before = show(server, unit, "MainPID")
        kill = ("systemctl", "kill", "--signal=KILL", f"--kill-whom={which}")
        server.run(*kill, unit)
        wait_for_next(server, unit, before)
        lost = list(load.dropped)
        load.wait_for(400)
    assert len(lost) <= visitors
    # Not begun, or an answer of which the rest was not there any more.
    assert all(re.search(": (503|IncompleteRead.*)$", fault) for fault in lost)
    assert load.dropped == lost


def test_the_worker_reaches_only_allowed_addresses(server: Server) -> None:
    unit = f"{NAME}@worker"
    local = {"127.0.0.0/8", "::1/128"}

    def allowed() -> set[str]:
        return set(show(server, unit, "IPAddressAllow").split())

    assert set(show(server, unit, "IPAddressDeny").split()) == {"0.0.0.0/0", "::/0"}
    assert allowed() >= local
    with server.path(f"/etc/{NAME}/env.production").open("a") as settings:
        settings.write("APP_MAIL_URL='smtp://me:p/w#1@mail.example.com:587'\n")
        settings.write("APP_REDIS_URL=rediss://:x@[2001:db8::7]:6379/0\n")
    hosts = server.path("/etc/hosts")
    with hosts.open("a") as file:
        file.write("192.0.2.25 mail.example.com\n198.51.100.9 api.example.com\n")
    own = server.path(f"{HOME}/current/app/hosts.txt")
    own.write_text("# who is paid\napi.example.com\n203.0.113.0/24\n")
    server.run("systemctl", "start", f"{NAME}@reach")
    declared = {"192.0.2.25/32", "2001:db8::7/128", "198.51.100.9/32", "203.0.113.0/24"}
    assert allowed() >= local | declared
    assert not {"0.0.0.0/0", "::/0"} & allowed()
    assert show(server, f"{NAME}@reach.timer", "ActiveState") == "active"
    # What a name meant before stays: name servers take turns.
    hosts.write_text(hosts.read_text().replace("192.0.2.25", "192.0.2.26"))
    server.run("systemctl", "start", f"{NAME}@reach")
    assert allowed() >= local | declared | {"192.0.2.26/32"}
    own.write_text("any\n")
    server.run("systemctl", "start", f"{NAME}@reach")
    assert {"0.0.0.0/0", "::/0"} <= allowed()


def test_a_killed_worker_comes_back(server: Server) -> None:
    unit = f"{NAME}@worker"
    before = show(server, unit, "MainPID")
    server.run("kill", "-KILL", before)
    wait_for_next(server, unit, before)


def test_gunicorn_replaces_a_process_of_its_own(server: Server) -> None:
    main = show(server, web(server), "MainPID")
    eventually(lambda: len(children(server, main)) > 1)
    child = children(server, main)[0]
    server.run("kill", "-KILL", child)
    eventually(lambda: child not in children(server, main))
    eventually(lambda: len(children(server, main)) > 1)
    assert server.ask("/readyz").status == 200


def children(server: Server, pid: str) -> list[str]:
    return server.path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def test_rotated_logs_lose_no_line(server: Server) -> None:
    logs = server.path("/var/log/nginx")
    for log in logs.glob("access.log*"):
        log.unlink()
    server.run("systemctl", "kill", "--signal=USR1", "nginx")
    eventually((logs / "access.log").exists)
    with Load(server, 4, ("/static/app.css",)) as load:
        for name in ("access.log.1", "access.log.2.gz"):
            load.wait_for(200)
            server.run("logrotate", "--force", "/etc/logrotate.d/nginx")
            eventually((logs / name).exists)
        load.wait_for(200)

    def lines() -> int:
        texts = [(logs / name).read_bytes() for name in ("access.log", "access.log.1")]
        texts.append(gzip.decompress((logs / "access.log.2.gz").read_bytes()))
        return sum(text.count(b"/static/app.css") for text in texts)

    assert load.dropped == []
    eventually(lambda: lines() == load.answered, 10)
