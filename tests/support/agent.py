"""A process that logs, and syslog-ng that ships its lines as a service has it."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.conftest import ROOT
from tests.support.certificates import certify
from tests.support.servers import PATIENCE, eventually, running
from tests.support.sinks import FINE, SILENT, Sink

PIECES = ROOT / "template/deploy/shipping"
TOKEN = "sesame-1234"
MEBIBYTE = 1024 * 1024
# How long a fault lasts. SHIPPING_OUTAGE=60 tries it for longer.
OUTAGE = float(os.environ.get("SHIPPING_OUTAGE", "3"))

# Writes lines to stdout as gunicorn's processes do, and reports when it is done.
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
        self.output = folder / "agent.err"
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
            eventually(lambda: self.control.exists() and self.counts())
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

    def all_arrive(self, sink: Sink, but: int = 0, patience: float = PATIENCE) -> None:
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
