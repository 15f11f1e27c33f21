"""Measures what a secured request costs, against a bare Flask app in the same run.

    .venv/bin/python -m tests.benchmarks.request [--service FOLDER] [--json FILE]

In the process of a service with production settings, on SQLite and on PostgreSQL, each
kind of request takes turns with the same request to a bare app. Figures are medians of
processor time. A ratio is the median of the ratios of neighbors, which stays true on a
busy machine. Statements and round trips include BEGIN, ROLLBACK and pings.
`--instructions` also counts instructions, in five minutes, if valgrind is installed.
"""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from tests.benchmarks.measuring import Service, arguments, show, write
from tests.support.servers import Postgres

SCRIPT = "benchmark_requests.py"
COLUMNS = ("", "µs", "bare µs", "× bare", "statements", "round trips")
Figures = dict[str, dict[str, Any]]


def measure(service: Service, rounds: int, each: int) -> Figures:
    """Return the figures of each kind of request on the service's database."""
    client = {"BENCHMARK_CLIENT": json.dumps(service.run("benchmark_accounts.py"))}
    figures: Figures = service.run(SCRIPT, "time", rounds, each, **client)
    for kind, counted in service.run(SCRIPT, "count", **client).items():
        figures[kind] |= counted
    return figures


def instructions(service: Service, each: int) -> Figures:
    """Return the instructions of each kind of request, counted by valgrind."""
    client = {
        "BENCHMARK_CLIENT": json.dumps(service.run("benchmark_accounts.py")),
        "BENCHMARK_FOLDER": str(service.folder),
    }
    valgrind = ["valgrind", "--tool=callgrind", "--instr-atstart=no", "--vgdb-poll=100"]
    valgrind += [f"--callgrind-out-file={service.folder}/callgrind.%p"]
    command = [*valgrind, *service.command(SCRIPT, "instructions", each)]
    return service.run_command(command, **client)


def show_figures(database: str, figures: Figures) -> None:
    rows = []
    for name, found in figures.items():
        counts = found.get("statements"), found.get("round trips")
        ours, bare, ratio = found["service"], found["bare"], found["ratio"]
        title = name
        if "line" in name:  # what they add to a bare request
            title, ours, ratio = f"{name}: what it adds", ours - bare, ratio - 1
        rows.append((title, ours / 1000, bare / 1000, ratio, *counts))
    show(database, COLUMNS, rows)


def main() -> None:
    """Print the figures."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--rounds", type=int, default=30, help="turns of each kind")
    parser.add_argument("--each", type=int, default=30, help="requests in a turn")
    parser.add_argument("--instructions", action="store_true", help="with valgrind")
    given = parser.parse_args()
    found: dict[str, Figures] = {}
    with tempfile.TemporaryDirectory() as name, Postgres() as server:
        folder = Path(name)
        urls = {"SQLite": f"sqlite:///{folder}/service.db"}
        urls["PostgreSQL"] = server.database()
        for database, url in urls.items():
            service = Service(given.service, folder, url)
            found[database] = measure(service, given.rounds, given.each)
            show_figures(database, found[database])
        if given.instructions and shutil.which("callgrind_control"):
            service = Service(given.service, folder, server.database())
            counted = instructions(service, 20)
            found["instructions"] = counted
            rows = [(kind, *values.values()) for kind, values in counted.items()]
            show("Instructions, PostgreSQL", ("", "service", "bare", "× bare"), rows)
    write(given.json, found)


if __name__ == "__main__":
    main()
