"""Each log line reaches Splunk, Loggly or a syslog server, whatever happens."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.servers import PATIENCE, certify, eventually, running
from tests.sinks import (
    BUSY,
    FINE,
    SILENT,
    Loggly,
    Sink,
    Splunk,
    Syslog,
    Web,
)

pytestmark = pytest.mark.needs("syslog-ng-core", "syslog-ng-mod-http")

PIECES = ROOT / "template/deploy/shipping"
TOKEN = "sesame-1234"
MEBIBYTE = 1024 * 1024
# How long a fault lasts. SHIPPING_OUTAGE=60 tries it for longer.
OUTAGE = float(os.environ.get("SHIPPING_OUTAGE", "6"))
SINKS = [Splunk, Loggly, Syslog]
# syslog-ng by itself gives a line up after some of them, at once or at the fourth.
REFUSALS = [301, 400, 403, 410, 413, 422, 429, 503, 504]

# Writes lines to stdout as gunicorn's processes do, and says when it is done with them.
WRITER = """
import json, sys, time
first, lines, pause, size = map(json.loads, sys.argv[1:])
for number in range(first, first + lines):
    line = {"event": "request", "number": number, "route": "/", "filler": "x" * size}
    sys.stdout.write(json.dumps(line) + "\\n")
    sys.stdout.flush()
    time.sleep(pause)
"""


class Service:
    """A process that logs, and the agent that ships it, in a folder of their own."""

    def __init__(self, folder: Path, sink: Sink, spool: int = 64 * MEBIBYTE) -> None:
        self.folder, self.written = folder, 0
        self.log = folder / "service.log"
        self.log.touch()
        self.state = folder / "spool"
        self.state.mkdir()
        self.said = folder / "agent.err"
        self.config = folder / "shipping.conf"
        pieces = ("syslog-ng", "file", sink.piece)
        text = "".join((PIECES / f"{piece}.conf").read_text() for piece in pieces)
        self.config.write_text(text.replace("time-reopen(5)", "time-reopen(1)"))
        self.environment = {
            "SHIPPING_NAME": "shop",
            "SHIPPING_HOST": "localhost",
            "SHIPPING_PORT": str(sink.port),
            "SHIPPING_TOKEN": TOKEN,
            "SHIPPING_CA": str(sink.authority),
            "SHIPPING_STATE": str(self.state),
            "SHIPPING_SPOOL": str(spool),
            "SHIPPING_FILE": str(self.log),
            "PATH": os.environ["PATH"],
        }

    @contextmanager
    def shipping(self) -> Iterator[subprocess.Popen[bytes]]:
        """Run the agent while the block lasts; return once it reads."""
        with running(
            *("syslog-ng", "--foreground", "--no-caps", "--cfgfile", self.config),
            *("--persist-file", self.state / "persist", "--control", self.control),
            *("--pidfile", self.folder / "pid"),
            log=self.folder / "agent",
            env=self.environment,
        ) as process:
            eventually(lambda: self.control.exists() and self.counts(), 10)
            yield process

    @property
    def control(self) -> Path:
        return self.folder / "control"

    def counts(self) -> dict[str, int]:
        """Return what the agent has counted for where it ships to."""
        done = subprocess.run(
            ("syslog-ng-ctl", "stats", "--control", self.control),
            capture_output=True,
            text=True,
            check=False,
        )
        found = re.findall(
            r"^dst\.\w+;d_elsewhere#.*;a;(\w+);(\d+)$", done.stdout, re.MULTILINE
        )
        return {name: int(number) for name, number in found}

    def spooled(self) -> int:
        """Return how many bytes the spool takes on disk."""
        return sum(file.stat().st_size for file in self.state.glob("*.rqf"))

    def write(self, lines: int, pause: float = 0, size: int = 100) -> int:
        """Log lines; return when the service has written all of them."""
        return self.start_writing(lines, pause, size).wait(OUTAGE + PATIENCE)

    def start_writing(
        self, lines: int, pause: float = 0, size: int = 100
    ) -> subprocess.Popen[bytes]:
        first, self.written = self.written, self.written + lines
        arguments = map(str, (first, lines, pause, size))
        with self.log.open("ab") as stdout:
            return subprocess.Popen(
                [sys.executable, "-c", WRITER, *arguments], stdout=stdout
            )

    def arrived(self, sink: Sink) -> list[int]:
        """Return the numbers of the lines that a sink has, those it has twice once."""
        lines = list(map(json.loads, list(sink.lines)))
        numbers = [line["number"] for line in lines if line["event"] == "request"]
        return list(dict.fromkeys(numbers))

    def all_arrive(self, sink: Sink, but: int = 0, patience: float = 40) -> None:
        """Wait until a sink has each line that was written, in order, but so many."""

        def is_last() -> bool:
            arrived = self.arrived(sink)
            return self.written - but <= len(arrived) and self.written - 1 in arrived

        with suppress(TimeoutError):
            eventually(is_last, patience)
        arrived = self.arrived(sink)
        lost = sorted(set(range(self.written)) - set(arrived))
        assert len(lost) <= but, f"{len(lost)} of {self.written} lost: {lost[:20]}"
        assert arrived == sorted(arrived)


@pytest.fixture(params=SINKS, ids=lambda kind: str(kind.piece))
def sink(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Sink]:
    with request.param(tmp_path).running() as sink:
        yield sink


@pytest.fixture
def service(tmp_path: Path, sink: Sink) -> Service:
    return Service(tmp_path, sink)


LINES = [
    {"event": "request", "route": "/<int:id>", "status": 200, "milliseconds": 1.5},
    {"event": "authn_login_fail", "user_id": None, "nested": {"deep": [1, "2", True]}},
    {"event": "separators \u2028 \u2029 \x85 \v \f", "level": "info"},
    {"event": "line ends \r\n \n \r", "level": "info"},
    {"event": "\x1b[31mred\x1b[0m \x00 \x07 \t \\ \" ' `PATH` $MESSAGE ${HOST} %s"},
    {"event": "<14>1 - - - - - not a header", "é": "ü 漢字 \U0001f512"},
    {"event": "long", "text": "0123456789" * 6_000},
    {"event": "longer", "text": "x" * 250_000},
]


def test_each_line_arrives_as_it_was(service: Service, sink: Sink) -> None:
    # As the service writes it, and with as little escaped as JSON allows.
    lines = [json.dumps(line) for line in LINES]
    lines += [json.dumps(line, ensure_ascii=False) for line in LINES]
    lines += ["no JSON at all", '{"number": NaN}', "  blanks before and after  "]
    with service.shipping():
        service.log.write_bytes("".join(f"{line}\n" for line in lines).encode())
        eventually(lambda: len(sink.lines) > len(lines), 20)
    starts = [line for line in sink.lines if "shipping_starts" in line]
    assert len(starts) == 1
    assert [line for line in sink.lines if line not in starts] == lines


def test_the_first_line_says_that_shipping_starts(service: Service, sink: Sink) -> None:
    with service.shipping():
        eventually(lambda: sink.lines, 20)
    said = {"event": "shipping_starts", "service": "shop", "level": "info"}
    assert json.loads(sink.lines[0]) == said


@contextmanager
def trouble(sink: Sink, kind: str, folder: Path) -> Iterator[None]:
    """Give a sink some trouble while the block lasts."""
    if kind in ("busy", "stuck"):
        sink.mood = kind
        yield
        sink.mood = FINE
        return
    sink.leave()
    if kind == "silent":
        sink.mood = SILENT
    elif kind == "wrong name":
        sink.show(*sink.other)
    elif kind == "wrong certificate":
        wrong = (folder / "wrong.pem", folder / "wrong.key")
        certify("localhost", *wrong)
        sink.show(*wrong)
    if kind != "stopped":
        sink.arrive()
    yield
    sink.mood = FINE
    sink.show(sink.certificate, sink.key)
    if kind == "stopped":
        sink.arrive()


FAULTS = ["stopped", "busy", "silent", "stuck", "wrong certificate", "wrong name"]


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_of_the_other_side_loses_nothing_and_slows_nobody(
    service: Service, sink: Sink, kind: str, tmp_path: Path
) -> None:
    if kind == "busy" and not sink.busy_is_known:
        pytest.skip("a syslog server has no answers")
    # The connection that was open breaks, which syslog notices by a line.
    cost = 0 if kind in ("busy", "stuck") else sink.costs
    with service.shipping():
        service.write(50)
        service.all_arrive(sink)
        with trouble(sink, kind, tmp_path):
            before, bytes_before = len(sink.lines), sink.bytes
            # It ends by itself while nobody takes a line.
            assert service.write(int(OUTAGE * 100), pause=0.01, size=500) == 0
            assert len(sink.lines) == before
            if kind.startswith("wrong"):
                assert sink.bytes == bytes_before
        service.write(50)
        service.all_arrive(sink, but=cost)
        assert service.counts()["dropped"] == 0


@pytest.mark.parametrize("cut", [BUSY, SILENT, FINE])
def test_an_agent_that_is_killed_loses_nothing_that_it_had_taken(
    service: Service, sink: Sink, cut: str
) -> None:
    mood = SILENT if cut == BUSY and not sink.busy_is_known else cut
    with service.shipping() as agent:
        eventually(lambda: sink.lines, 20)
        sink.mood = mood
        if mood == SILENT:
            sink.leave()
            sink.arrive()
        writer = service.start_writing(600, pause=0.005, size=500)
        time.sleep(1.5)
        agent.kill()
        agent.wait()
        # What it has taken is in its spool alone: the service's file is gone.
        taken = service.spooled()
        assert writer.wait(PATIENCE) == 0
    sink.mood = FINE
    with service.shipping():
        service.write(10)
        service.all_arrive(sink, but=sink.costs if mood == SILENT else 0)
        assert service.counts()["dropped"] == 0
    assert taken or mood == FINE


@pytest.mark.parametrize("kind", [Splunk, Syslog], ids=lambda kind: str(kind.piece))
def test_a_full_spool_is_bounded_and_its_loss_counted(
    kind: type[Sink], tmp_path: Path
) -> None:
    with kind(tmp_path).running() as sink:
        service = Service(tmp_path, sink, spool=MEBIBYTE)
        with service.shipping():
            service.write(1)
            service.all_arrive(sink)
            sink.leave()
            # Four times what fits, at full speed; the service writes all of it.
            assert service.write(4_000, size=1_000) == 0
            eventually(lambda: service.counts()["processed"] >= 4_002, 30)
            dropped = service.counts()["dropped"]
            assert 2_000 < dropped < 4_000
            assert service.spooled() <= 1.1 * MEBIBYTE
            sink.arrive()
            eventually(lambda: service.counts()["queued"] == 0, 30)
            assert service.write(1) == 0
            service.all_arrive(sink, but=dropped + sink.costs)
            # The count is exact.
            lost = service.written - len(service.arrived(sink))
            assert dropped <= lost <= dropped + sink.costs
        # It says so in its own log as well.
        assert re.search(r"queue.* full, dropping", service.said.read_text())


@pytest.mark.parametrize("trial", ["fine", "busy", "stopped", "wrong certificate"])
def test_the_token_is_in_no_log_and_in_no_list_of_processes(
    service: Service, sink: Sink, trial: str, tmp_path: Path
) -> None:
    with service.shipping() as agent:
        command = Path(f"/proc/{agent.pid}/cmdline").read_bytes()
        assert b"shipping.conf" in command
        assert TOKEN.encode() not in command
        eventually(lambda: sink.lines, 20)
        with trouble(sink, trial, tmp_path) if trial != "fine" else nullcontext():
            service.write(5)
            time.sleep(3)
    said = service.said.read_text()
    assert "shutting down" in said
    if trial != "fine" and sink.piece == "loggly":
        assert "/bulk/TOKEN/tag/shop/" in said
    assert TOKEN not in said
    assert TOKEN not in service.config.read_text()


@pytest.mark.parametrize("kind", [Splunk, Loggly], ids=lambda kind: str(kind.piece))
def test_whatever_the_answer_a_line_is_kept_until_it_is_200(
    kind: type[Web], tmp_path: Path
) -> None:
    with kind(tmp_path).running() as sink:
        service = Service(tmp_path, sink)
        with service.shipping():
            for status in REFUSALS:
                sink.status, sink.mood, asked = status, BUSY, len(sink.heads)
                service.write(1)
                while len(sink.heads) < asked + 5:
                    time.sleep(0.05)
                sink.mood = FINE
                service.all_arrive(sink)
            assert service.counts()["dropped"] == 0


@pytest.mark.parametrize("kind", SINKS, ids=lambda kind: str(kind.piece))
def test_a_sink_that_vanishes_has_no_more_than_it_said(
    kind: type[Sink], tmp_path: Path
) -> None:
    """Cut the power of a sink in the middle of a stream, three times."""
    with kind(tmp_path).running() as sink:
        service = Service(tmp_path, sink)
        with service.shipping():
            writer = service.start_writing(1_000, pause=0.01)
            for _ in range(3):
                time.sleep(2)
                sink.vanish()
                time.sleep(1)
                sink.arrive()
            assert writer.wait(PATIENCE) == 0
            service.all_arrive(sink, but=3 * 5 * sink.costs)


def test_what_waits_goes_to_a_new_address(
    service: Service, sink: Sink, tmp_path: Path
) -> None:
    with service.shipping():
        eventually(lambda: sink.lines, 20)
        sink.leave()
        service.write(20)
        time.sleep(2)
    (tmp_path / "new").mkdir()
    with type(sink)(tmp_path / "new").running() as new:
        service.environment["SHIPPING_PORT"] = str(new.port)
        service.environment["SHIPPING_CA"] = str(new.authority)
        with service.shipping():
            service.write(1)
            service.all_arrive(new, but=sink.costs)
