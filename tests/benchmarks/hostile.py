"""Counts the 5xx of 20,000 hostile requests, on SQLite and on PostgreSQL.

    .venv/bin/python -m tests.benchmarks.hostile [REQUESTS]

They go to each route of a new service with all examples of docs/extend.md, as its own
`tests/bulwark/web/test_hostile.py` sends them. Takes a quarter of an hour.
"""

import os
import subprocess
import sys
import tempfile
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from copier import run_copy

from tests.conftest import run
from tests.support.guide import Service
from tests.support.servers import Postgres

ROOT = Path(__file__).resolve().parents[2]
TEST = "tests/bulwark/web/test_hostile.py"


def make_service(folder: Path) -> Service:
    """Return a new service in which every example was followed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the working tree is not committed
        run_copy(
            str(ROOT), folder, vcs_ref="HEAD", defaults=True, unsafe=True, quiet=True
        )
    run("bin/setup", cwd=folder)
    service = Service(folder)
    service.follow(*range(1, len(service.examples)))
    return service


def attack(service: Service, requests: str, **environment: str) -> str:
    """Return what the test of the service printed."""
    done = subprocess.run(
        ["bin/test", "-s", "-q", "--show-capture=no", TEST],
        cwd=service.folder,
        env=os.environ | {"HOSTILE_REQUESTS": requests} | environment,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    found = [line for line in done.stdout.splitlines() if "of them 5xx:" in line]
    return found[0] if found else (done.stdout + done.stderr)[-2000:]


def main() -> None:
    requests = sys.argv[1] if len(sys.argv) > 1 else "20000"
    with tempfile.TemporaryDirectory() as folder, Postgres() as server:
        service = make_service(Path(folder) / "service")
        with ThreadPoolExecutor() as both:
            url = server.database()
            sqlite = both.submit(attack, service, requests)
            postgres = both.submit(attack, service, requests, APP_DATABASE_URL=url)
        print("SQLite:", sqlite.result())
        print("PostgreSQL:", postgres.result())


if __name__ == "__main__":
    main()
