"""Each log line reaches Splunk, Loggly or a syslog server, whatever happens."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.servers import certify, eventually, running
from tests.sinks import (
    BUSY,
    FINE,
    SILENT,
    STUCK,
    Loggly,
    Sink,
    Splunk,
    Syslog,
)

pytestmark = pytest.mark.needs("syslog-ng-core", "syslog-ng-mod-http")

PIECES = ROOT / "template/deploy/shipping"
TOKEN = "sesame-1234"
MEBIBYTE = 1024 * 1024
# How long a fault lasts. SHIPPING_OUTAGE=60 tries it for longer.
OUTAGE = float(os.environ.get("SHIPPING_OUTAGE", "6"))
SINKS = [Splunk, Loggly, Syslog]

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
        self.config.write_text(
            "".join((PIECES / f"{x}.conf").read_text() for x in pieces)
        )
        self.environment = {
            "SHIPPING_NAME": "shop",
            "SHIPPING_HOST": "localhost",
            "SHIPPING_PORT": str(sink.port),
            "SHIPPING_TOKEN": TOKEN,
            "SHIPPING_CA": str(sink.certificate),
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
        found = re.findall(r"^dst\.\w+;.*;a;(\w+);(\d+)$", done.stdout, re.MULTILINE)
        return {name: int(number) for name, number in found}

    def write(self, lines: int, pause: float = 0, size: int = 100) -> None:
        """Log lines; return when the service has written all of them."""
        self.start_writing(lines, pause, size).wait(OUTAGE + 30)

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

    def all_arrive(self, sink: Sink, patience: float = 40) -> None:
        """Wait until a sink has each line that was written, in that order."""
        wanted = list(range(self.written))
        try:
            eventually(lambda: len(self.arrived(sink)) == len(wanted), patience)
        except TimeoutError:
            missing = sorted(set(wanted) - set(self.arrived(sink)))
            pytest.fail(f"{len(missing)} of {len(wanted)} lost: {missing[:20]}…")
        assert self.arrived(sink) == wanted


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
    assert sink.lines[1:] == lines


def test_the_first_line_says_that_shipping_starts(service: Service, sink: Sink) -> None:
    with service.shipping():
        eventually(lambda: sink.lines, 20)
    said = {"event": "shipping_starts", "service": "shop", "level": "info"}
    assert json.loads(sink.lines[0]) == said


@contextmanager
def trouble(sink: Sink, kind: str, folder: Path) -> Iterator[None]:
    """Give a sink some trouble while the block lasts."""
    if kind == "stopped":
        sink.leave()
    elif kind == "wrong certificate":
        wrong = (folder / "wrong.pem", folder / "wrong.key")
        certify("localhost", *wrong)
        sink.show(*wrong)
        sink.leave()
        sink.arrive()
    else:
        sink.mood = kind
    yield
    if kind == "stopped":
        sink.arrive()
    elif kind == "wrong certificate":
        sink.show(sink.certificate, sink.key)
    sink.mood = FINE


@pytest.mark.parametrize("kind", ["stopped", BUSY, SILENT, STUCK, "wrong certificate"])
def test_a_fault_of_the_other_side_loses_nothing_and_slows_nobody(
    service: Service, sink: Sink, kind: str, tmp_path: Path
) -> None:
    if kind == BUSY and not sink.busy_is_known:
        pytest.skip("a syslog server has no answers")
    with service.shipping():
        service.write(50)
        service.all_arrive(sink)
        with trouble(sink, kind, tmp_path):
            before, bytes_before = len(sink.lines), sink.bytes
            lines = int(OUTAGE * 100)
            writer = service.start_writing(lines, pause=0.01, size=500)
            # It ends by itself while nobody takes a line.
            assert writer.wait(OUTAGE + 30) == 0
            assert len(sink.lines) == before
            if kind == "wrong certificate":
                assert sink.bytes == bytes_before
        service.write(50)
        service.all_arrive(sink)
        counts = service.counts()
    assert counts["dropped"] == 0
