"""deploy/shipping/install on a server: what it accepts, and what then arrives."""

import json
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.support.deployed import HOME, NAME, Server
from tests.support.disks import installed
from tests.support.machine import NEEDS_MACHINE
from tests.support.servers import eventually
from tests.support.sinks import Sink, Splunk, Syslog

pytestmark = NEEDS_MACHINE

SETTINGS = f"/etc/{NAME}/shipping.env"
HOST, TOKEN = "logs.example.com", "sesame-1234"
AUTHORITY = "/usr/local/share/authority.pem"
# Logs whatever it receives, like a service that logs too much.
VIEWS = """

from bulwark.observability.logging import log


@blueprint.post("/test/log")
@csrf.exempt
@public
def say() -> ResponseReturnValue:
    log.info("said", words=request.get_data(as_text=True))
    return {"said": True}
"""


class Site(NamedTuple):
    server: Server
    sink: Sink

    def settings(self, text: str, mode: int = 0o600) -> None:
        self.server.write(SETTINGS, text, mode)

    def install(self) -> tuple[int, str]:
        done = self.server.deploy("shipping/install", self.sink.piece)
        return done.returncode, done.stderr

    def output(self) -> list[str]:
        """Return what the service has logged, as it has arrived."""
        lines = [json.loads(x) for x in list(self.sink.lines) if x.startswith("{")]
        return [line["data"]["words"] for line in lines if line["event"] == "said"]

    def main_process(self) -> int:
        """Return the id of the process that ships, 0 if none does."""
        show = ("systemctl", "show", "-P", "MainPID", f"{NAME}-shipping")
        return int(self.server.run(*show))

    def say(self, words: str) -> None:
        assert self.server.ask("/test/log", "POST", words.encode()).status == 200


PLACES = [("trixie", Splunk), ("trixie", Syslog), ("bookworm", Splunk)]


@pytest.fixture(
    scope="module", params=PLACES, ids=lambda place: f"{place[0]}-{place[1].piece}"
)
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    suite, kind = request.param
    with Server(installed(tmp_path_factory, suite), parts=["web"]) as server:
        server.certify()
        # There is no name server; syslog-ng, which looks up the machine's own name at
        # its start, would wait for the one of whoever runs the tests.
        server.run("sh", "-c", "echo nameserver 127.0.0.1 >/etc/resolv.conf")
        with server.path(f"{HOME}/current/app/views.py").open("a") as file:
            file.write(VIEWS)
        server.run("systemctl", "restart", f"{NAME}@{server.current}")
        eventually(lambda: server.ask("/readyz").status == 200)
        folder = tmp_path_factory.mktemp("sink")
        with kind(folder, server.visitor, HOST).running() as sink:
            with server.path("/etc/hosts").open("a") as file:
                file.write(f"{server.visitor} {HOST}\n")
            server.write(AUTHORITY, sink.authority.read_text())
            yield Site(server, sink)


RIGHT = f"""\
# Where the log goes.
SHIPPING_HOST={HOST}
SHIPPING_TOKEN={TOKEN}
SHIPPING_CA={AUTHORITY}
"""
WRONG = {
    "quotes": (f'SHIPPING_HOST="{HOST}"\n', "line 1, must be a name like"),
    "two hosts": ("SHIPPING_HOST=a b\n", "line 1, must be a name like"),
    "code": ("SHIPPING_HOST=$(id)\n", "line 1, must be a name like"),
    "configuration": ('SHIPPING_TOKEN=a"); file("/x\n', "must be letters, digits"),
    "something else": ("APP_SECRET=1\n", "Line 1 of"),
    "no host": ("SHIPPING_TOKEN=abc\n", "must set SHIPPING_HOST="),
    "no authority": (f"SHIPPING_HOST={HOST}\nSHIPPING_TOKEN=a\nSHIPPING_CA=/x\n", "/x"),
    "a small spool": (f"{RIGHT}SHIPPING_SPOOL=1000\n", "at least 1048576"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_settings_that_are_wrong_are_refused(site: Site, wrong: str) -> None:
    text, why = WRONG[wrong]
    written = site.server.path(f"/etc/syslog-ng/{NAME}-shipping.conf")
    before = written.exists()
    site.settings(text)
    code, output = site.install()
    assert code == 1
    assert why in output
    assert written.exists() == before


def test_settings_that_are_not_there_are_asked_for(site: Site) -> None:
    site.server.path(SETTINGS).unlink(missing_ok=True)
    code, output = site.install()
    assert code == 1
    assert f"install -m 600 /dev/null {SETTINGS}" in output


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_settings_that_others_may_read_are_refused(site: Site, mode: int) -> None:
    site.settings(RIGHT, mode)
    code, output = site.install()
    assert code == 1
    assert f"chmod 600 {SETTINGS}" in output


def test_a_sink_that_accepts_nothing_is_reported_at_once(site: Site) -> None:
    site.settings(RIGHT)
    site.sink.leave()
    code, output = site.install()
    site.sink.arrive()
    assert code == 1
    assert "has not accepted a line yet" in output
    assert TOKEN not in output


@pytest.fixture
def shipping(site: Site) -> Site:
    """Return a site whose log is shipped."""
    if not site.main_process():
        site.settings(RIGHT)
        code, output = site.install()
        assert code == 0, output
    return site


def test_lines_of_the_service_arrive_as_they_are_in_the_journal(site: Site) -> None:
    site.settings(RIGHT)
    for _ in range(2):  # the second time all is there
        code, output = site.install()
        assert code == 0, output
    assert f"{HOST} accepts the log" in output
    words = ["a\r\nb\n\u2028c\x1b[31m \x85 é 漢", "x" * 60_000, "the end"]
    for text in words:
        site.say(text)
    eventually(lambda: site.output()[-1:] == ["the end"], 20)
    assert site.output()[-len(words) :] == words
    kept = site.server.journal("-u", f"{NAME}@*").splitlines()
    mine = [x for x in list(site.sink.lines) if '"shipping_starts"' not in x]
    assert set(mine) <= set(kept)
    assert any('"event": "request"' in line for line in mine)


def test_lines_of_others_stay_here(shipping: Site) -> None:
    shipping.server.run("logger", "nobody else's business")
    shipping.say("after it")
    eventually(lambda: "after it" in shipping.output(), 20)
    assert not any("nobody else" in line for line in shipping.sink.lines)


def test_the_service_answers_while_nobody_takes_its_lines(shipping: Site) -> None:
    shipping.sink.leave()
    words = [f"word {number}" for number in range(40)]
    for text in words[:20]:
        shipping.say(text)
    shipping.server.run("kill", "-KILL", str(shipping.main_process()))
    for text in words[20:]:
        shipping.say(text)
    shipping.sink.arrive()
    wanted = words[shipping.sink.costs :]
    eventually(lambda: set(wanted) <= set(shipping.output()), 40)
    arrived = [x for x in dict.fromkeys(shipping.output()) if x in words]
    assert arrived[-len(wanted) :] == wanted


def test_only_root_can_find_the_token(shipping: Site) -> None:
    run = shipping.server.run
    pid = shipping.main_process()
    assert shipping.server.path(SETTINGS).stat().st_mode & 0o777 == 0o600
    seen = run("sh", "-c", "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' || :")
    assert f"{NAME}-shipping.conf" in seen
    shown = run("systemctl", "show", f"{NAME}-shipping")
    found = run("sh", "-c", f"grep -rl {TOKEN} /etc/syslog-ng /etc/systemd || :")
    for text in (seen, shown, found, shipping.server.journal()):
        assert TOKEN not in text
    as_nobody = ("runuser", "-u", "nobody", "--", "cat", f"/proc/{pid}/environ")
    assert shipping.server.attempt(*as_nobody).returncode != 0
    assert run("stat", "-c", "%a", f"/var/lib/private/{NAME}-shipping") == "700\n"
    # Neither root nor the service's own account.
    owner = run("stat", "-c", "%U", f"/proc/{pid}").strip()
    assert owner not in ("root", NAME)
