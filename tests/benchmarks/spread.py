"""Measures how evenly gunicorn's workers share requests behind nginx.

    .venv/bin/python -m tests.benchmarks.spread [--service FOLDER] [--json FILE]

It runs the service with its own gunicorn.conf.py, on a Unix socket and on TCP, with 16
and with 200 connections. This takes turns with workers that accept more connections
than they can serve, and with connections that nginx keeps open. A worker's share is its
processor time. The figures are the largest distance of a worker from the mean, in
percent: in the median round and in the worst.
"""

import argparse
import json
import secrets
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from tests.benchmarks import load
from tests.benchmarks.measuring import DOMAIN, Service, arguments, show, write
from tests.support.servers import free_port

# Options of gunicorn, and of nginx's upstream.
LAYOUTS = {
    "as shipped": ("", ""),
    "accepting more than it can run": ("--worker-connections=1000", ""),
    "with connections kept open": (
        "--worker-connections=1000 --keep-alive=75",
        "keepalive 32;",
    ),
}
CONNECTIONS = (16, 200)
PATH = "/benchmark/json"


def measure(
    service: Service, place: str, layout: str, given: argparse.Namespace
) -> list[dict[str, Any]]:
    """Start the servers; return what each worker used at each number of connections."""
    options, upstream = LAYOUTS[layout]
    folder = service.folder / secrets.token_hex(4)
    socket = place == "socket"
    address = f"unix:{folder}/web.sock" if socket else f"127.0.0.1:{free_port()}"
    headers = {"Host": DOMAIN}
    found = []
    with load.behind_nginx(
        load.gunicorn(service, address, given.workers, *options.split()),
        address,
        folder,
        service=service,
        workers=given.workers,
        environment=service.environment,
        upstream=upstream,
    ) as server:
        load.wrk(server.url + PATH, 16, 1, headers)
        for connections in CONNECTIONS:
            seen, used = load.measured(
                server, PATH, connections, given.seconds, headers
            )
            mean = sum(used) / len(used)
            away = 100 * max(abs(seconds - mean) for seconds in used) / mean
            found.append(asdict(seen) | {"used": used, "away": away})
    return found


def main() -> None:
    """Print the figures."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3, help="of each load")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        service = Service(given.service, Path(name), f"sqlite:///{name}/service.db")
        service.run("benchmark_accounts.py")
        found: dict[str, list[dict[str, Any]]] = {}
        for _ in range(given.rounds):
            for place in ("socket", "TCP"):
                for layout in LAYOUTS:
                    done = measure(service, place, layout, given)
                    for connections, one in zip(CONNECTIONS, done, strict=True):
                        case = json.dumps((connections, place, layout))
                        found.setdefault(case, []).append(one)
    rows = [row(json.loads(case), rounds) for case, rounds in sorted(found.items())]
    columns = ("", "connections", "median %", "worst %", "a second", "p99 ms", "failed")
    show("A worker's distance from the mean", columns, rows)
    write(given.json, found)


def row(case: list[Any], rounds: Sequence[Mapping[str, Any]]) -> tuple[Any, ...]:
    connections, place, layout = case
    away = [done["away"] for done in rounds]
    rate, p99 = (median(done[name] for done in rounds) for name in ("rate", "p99"))
    failed = sum(done["failed"] for done in rounds)
    name = f"{layout}, {place}"
    return (name, connections, median(away), max(away), rate, p99, failed)


if __name__ == "__main__":
    main()
