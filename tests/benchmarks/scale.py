"""Measures a signed-in request as data, threads and connections grow.

    .venv/bin/python -m tests.benchmarks.scale [--service FOLDER] [--json FILE]

It uses PostgreSQL, and varies one thing at a time: 500, 100,000 and 1,000,000 users
with a session and an audit row each, where every request has another user's session; 1,
2, 4 and 8 threads in a worker; 100 and 1,000 connections through nginx. Takes three
minutes.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from tests.benchmarks import load
from tests.benchmarks.measuring import DOMAIN, Service, arguments, show, write
from tests.support.servers import Postgres

SIZES, THREADS, CONNECTIONS = (500, 100_000, 1_000_000), (1, 2, 4, 8), (100, 1000)
PATH, SCRIPT = "/benchmark/me", "benchmark_scale.py"
Rows = list[dict[str, Any]]


def grow_data(given: argparse.Namespace, folder: Path, server: Postgres) -> Rows:
    """Return the microseconds of a request among so many users."""
    services = {}
    for users in given.sizes:
        services[users] = Service(given.service, folder, server.database())
        services[users].run("benchmark_accounts.py")
        services[users].run(SCRIPT, "fill", users)
    rounds: dict[int, Rows] = {users: [] for users in given.sizes}
    for _ in range(given.rounds):  # in turns, so that all meet the same machine
        for users, service in services.items():
            rounds[users].append(service.run(SCRIPT, "time", users, given.requests))
    rows = []
    for users, found in rounds.items():
        app, database = (
            median(one[name] for one in found) for name in ("app", "database")
        )
        both = app + database
        rows.append({"users": users, "app": app, "database": database, "both": both})
    return rows


def put_load(
    given: argparse.Namespace, service: Service, cookie: str, **case: int
) -> dict[str, Any]:
    """Return what a load costs; a case is a number of threads or connections."""
    threads, connections = case.get("threads"), case.get("connections", 16)
    folder = service.folder / "-".join(f"{name}-{n}" for name, n in case.items())
    address = f"unix:{folder}/web.sock"
    workers = 1 if threads else given.workers
    options = [f"--{name}={threads}" for name in ("threads", "worker-connections")]
    headers = {"Host": DOMAIN, "Cookie": cookie}
    with load.behind_nginx(
        load.gunicorn(service, address, workers, *(options if threads else ())),
        address,
        folder,
        service=service,
        workers=workers,
        environment=service.environment,
    ) as server:
        load.wrk(server.url + PATH, connections, 1, headers)
        rounds = [
            load.measured(server, PATH, connections, given.seconds, headers)
            for _ in range(given.rounds)
        ]
    used = [1e6 * sum(used) / max(1, seen.requests) for seen, used in rounds]
    return {
        **case,
        "rate": median(seen.rate for seen, _ in rounds),
        "p50": median(seen.p50 for seen, _ in rounds),
        "p99": median(seen.p99 for seen, _ in rounds),
        "app": median(used),
        "failed": sum(seen.failed for seen, _ in rounds),
    }


def show_rows(title: str, columns: Sequence[str], rows: Rows, base: str) -> None:
    """Print rows; the last column is a figure's ratio to that of the first row."""
    first = rows[0][base] or 1
    show(title, (*columns, "×"), [(*row.values(), row[base] / first) for row in rows])


def main() -> None:
    """Print the figures."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--sizes", nargs="+", type=int, default=SIZES)
    parser.add_argument("--threads", nargs="+", type=int, default=THREADS)
    parser.add_argument("--connections", nargs="+", type=int, default=CONNECTIONS)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=10, help="of each load")
    given = parser.parse_args()
    found: dict[str, Rows] = {}
    with tempfile.TemporaryDirectory(prefix="scale-") as name, Postgres() as server:
        folder = Path(name)
        found["users"] = grow_data(given, folder, server)
        titles = ("users", "app µs", "database µs", "both µs")
        show_rows("Users", titles, found["users"], "both")
        service = Service(given.service, folder, server.database())
        cookie = service.run("benchmark_accounts.py")["cookie"]
        for kind, values in (
            ("threads", given.threads),
            ("connections", given.connections),
        ):
            found[kind] = [
                put_load(given, service, cookie, **{kind: value}) for value in values
            ]
            columns = (kind, "a second", "p50 ms", "p99 ms", "app µs", "failed")
            show_rows(kind.capitalize(), columns, found[kind], "rate")
    write(given.json, found)


if __name__ == "__main__":
    main()
