"""What the Core Rule Set costs, and whom it refuses: python -m tests.benchmarks.crs.

On a Debian 13 server in namespaces, so it needs root. CPU is what nginx and the service
used for a request, by the kernel's account: it stays true while others use the machine.
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
from tests.support.servers import eventually
from tests.support.town import FORM, Town, Visitor

ROUNDS, REQUESTS = 5, 150
COMMENT = urlencode({"title": "A question", "comment": "How do I change it? " * 20})
KINDS: dict[str, Callable[[Visitor], int]] = {
    "a static file": lambda visitor: visitor.ask("/static/app.css"),
    "a page": lambda visitor: visitor.ask("/login"),
    "a form of 450 bytes": lambda visitor: visitor.ask(
        "/login", COMMENT, {"Content-Type": FORM}
    ),
}


def cpu(town: Town, group: str) -> int:
    """Return how many microseconds of CPU a group of processes has used."""
    stat = town.path(f"/sys/fs/cgroup/system.slice/{group}/cpu.stat").read_text()
    return int(stat.split()[1])


def measure(town: Town, ask: Callable[[Visitor], int]) -> tuple[float, float, float]:
    """Return milliseconds a request: of nginx's CPU, of all CPU, and of waiting."""
    slice_ = f"system-{NAME}.slice".replace("-", r"\x2d").replace(r"\x2d", "-", 1)
    visitor, took = Visitor(town), []
    ask(visitor)
    before = [cpu(town, group) for group in ("nginx.service", slice_)]
    for _ in range(REQUESTS):
        started = time.perf_counter()
        ask(visitor)
        took.append(1000 * (time.perf_counter() - started))
    after = [cpu(town, group) for group in ("nginx.service", slice_)]
    nginx, service = (
        (new - old) / 1000 / REQUESTS for new, old in zip(after, before, strict=True)
    )
    return nginx, nginx + service, statistics.median(took)


def flagged(town: Town) -> tuple[int, int]:
    """Drive the service as people do; return how many requests, how many it minds."""
    log = town.path(CRS_LOG)
    log.write_text("")
    sent = drive(town)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    return sent, sum('"949110"' in json.dumps(line) for line in lines)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, Town(suite="trixie") as town:
        bring(town, make_service(Path(folder) / "service", "trixie"))
        done = town.install()
        assert done.returncode == 0, done.stderr
        town.certify()
        eventually(lambda: town.ask("/readyz").status == 200)
        site = town.path(f"{HOME}/current/deploy/nginx/https.conf")
        unlimited = re.sub(r"rate=\d+r/s", "rate=100000r/s", site.read_text())

        rules = town.path(f"{HOME}/current/deploy/nginx/crs/rules.conf")
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
            put_before(town, "watch")
            sent, minded = flagged(town)
            print(f"{name}: refuses {minded} of {sent} requests of people")
        put_before(town, "block")
        answers = [status for _, status, _ in attack(town)]
        print(f"refuses {answers.count(403)} of {len(answers)} attacks")

        site.write_text(unlimited)
        figures: dict[tuple[str, str], list[tuple[float, float, float]]] = {}
        for _ in range(ROUNDS):
            for mode in ("", "block"):
                put_before(town, mode)
                for kind, ask in KINDS.items():
                    figures.setdefault((kind, mode), []).append(measure(town, ask))
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
