"""What the Core Rule Set costs, and whom it refuses: python -m tests.benchmarks.crs.

It runs on a Debian 13 server in namespaces, so it needs root. CPU is the processor time
that nginx and the service used for a request: it stays true while others use the
machine.
Rounds with and without the rules take turns. Takes three minutes.
"""

import json
import re
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlencode

from tests.support.crs import CRS_LOG, attack, drive, put_before
from tests.support.deployed import HOME, NAME
from tests.support.disks import bring, make_service
from tests.support.public_server import PublicServer, PublicVisitor
from tests.support.servers import eventually
from tests.support.visitor import FORM, Response

ROUNDS, REQUESTS = 5, 150
COMMENT = urlencode({"title": "A question", "comment": "How do I change it? " * 20})
KINDS: dict[str, Callable[[PublicVisitor], Response]] = {
    "a static file": lambda visitor: visitor.ask("/static/app.css"),
    "a page": lambda visitor: visitor.ask("/login"),
    "a form of 450 bytes": lambda visitor: visitor.ask(
        "/login", "POST", COMMENT, Content_Type=FORM
    ),
}


def cpu(server: PublicServer, group: str) -> int:
    """Return how many microseconds of CPU a group of processes has used."""
    stat = server.path(f"/sys/fs/cgroup/system.slice/{group}/cpu.stat").read_text()
    return int(stat.split()[1])


def measure(
    server: PublicServer, ask: Callable[[PublicVisitor], Response]
) -> tuple[float, float, float]:
    """Return milliseconds a request: of nginx's CPU, of all CPU, and of waiting."""
    slice_ = f"system-{NAME}.slice".replace("-", r"\x2d").replace(r"\x2d", "-", 1)
    visitor, took = PublicVisitor(server), []
    ask(visitor)
    before = [cpu(server, group) for group in ("nginx.service", slice_)]
    for _ in range(REQUESTS):
        started = time.perf_counter()
        ask(visitor)
        took.append(1000 * (time.perf_counter() - started))
    after = [cpu(server, group) for group in ("nginx.service", slice_)]
    nginx, service = (
        (new - old) / 1000 / REQUESTS for new, old in zip(after, before, strict=True)
    )
    return nginx, nginx + service, statistics.median(took)


def flagged(server: PublicServer) -> tuple[int, int]:
    """Drive the service as people do; return how many requests, how many it minds."""
    log = server.path(CRS_LOG)
    log.write_text("")
    sent = drive(server)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    return sent, sum('"949110"' in json.dumps(line) for line in lines)


def main() -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        PublicServer(suite="trixie") as server,
    ):
        bring(server, make_service(Path(folder) / "service", "trixie"))
        done = server.install()
        assert done.returncode == 0, done.stderr
        server.certify()
        eventually(lambda: server.ask("/readyz").status == 200)
        site = server.path(f"{HOME}/current/deploy/nginx/https.conf")
        unlimited = re.sub(r"rate=\d+r/s", "rate=100000r/s", site.read_text())

        rules = server.path(f"{HOME}/current/deploy/nginx/crs/rules.conf")
        fitted = rules.read_text()
        for name, text in (
            (
                "as packaged",
                re.sub(
                    r"# --- What is not .*?\nInclude",
                    "Include",
                    fitted,
                    flags=re.DOTALL,
                ),
            ),
            ("fitted to the service", fitted),
        ):
            rules.write_text(text)
            put_before(server, "watch")
            sent, minded = flagged(server)
            print(f"{name}: refuses {minded} of {sent} requests of people")
        put_before(server, "block")
        answers = [response.status for _, response in attack(server)]
        print(f"refuses {answers.count(403)} of {len(answers)} attacks")

        site.write_text(unlimited)
        figures: dict[tuple[str, str], list[tuple[float, float, float]]] = {}
        for _ in range(ROUNDS):
            for mode in ("", "block"):
                put_before(server, mode)
                for kind, ask in KINDS.items():
                    figures.setdefault((kind, mode), []).append(measure(server, ask))
        for kind in KINDS:
            without, with_ = (
                [
                    statistics.median(column)
                    for column in zip(*figures[kind, mode], strict=True)
                ]
                for mode in ("", "block")
            )
            print(
                f"{kind}: nginx {without[0]:.2f} → {with_[0]:.2f} ms of CPU,"
                f" with the service {without[1]:.2f} → {with_[1]:.2f}"
                f" ({with_[1] / without[1]:.1f} ×), answered after"
                f" {without[2]:.1f} → {with_[2]:.1f} ms ({with_[2] / without[2]:.1f} ×)"
            )


if __name__ == "__main__":
    main()
