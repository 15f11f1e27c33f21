"""Compares the service under load with bare Flask, Django and FastAPI.

    .venv/bin/python -m tests.benchmarks.peers [--service FOLDER] [--json FILE]

Django has the middleware of cookiecutter-django, and its session in the database.
FastAPI has the stack of full-stack-fastapi-template, and a JWT. Both load the user and
three groups or roles, as the service does. All run behind nginx, on one PostgreSQL, and
get load in turns. Their packages are installed into ~/.cache/bulwark-benchmarks/.

On a machine that others use, trust the processor time and its ratios, not the rates.
"""

import argparse
import hashlib
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from tests.benchmarks import load
from tests.benchmarks.measuring import DOMAIN, ROOT, Service, arguments, show, write
from tests.support.servers import Postgres

HERE = Path(__file__).parent
CACHE = Path.home() / ".cache/bulwark-benchmarks"
KINDS = {"JSON": "/benchmark/json", "page": "/", "signed-in JSON": "/benchmark/me"}
COLUMNS = (
    *("", "a second", "p50 ms", "p99 ms", "app µs", "database µs"),
    *("failed", "rate ×", "app µs ×"),
)


def environment_of(name: str, python: Path) -> Path:
    """Install what a peer needs, unless it is there; return its folder of commands."""
    requirements = HERE / f"{name}.txt"
    mark = hashlib.sha256(requirements.read_bytes()).hexdigest()[:12]
    folder = CACHE / f"{name}-{mark}"
    if not (folder / "complete").exists():
        uv = os.environ.get("UV", str(ROOT / ".uv/bin/uv"))
        make = [uv, "venv", "--quiet", "--clear", f"--python={python}", str(folder)]
        subprocess.run(make, check=True)
        install = [uv, "pip", "install", "--quiet", f"--python={folder}"]
        subprocess.run([*install, f"--requirements={requirements}"], check=True)
        (folder / "complete").touch()
    return folder / "bin"


@contextmanager
def running(
    name: str, service: Service, server: Postgres, workers: int
) -> Iterator[tuple[load.Server, dict[str, str]]]:
    """Run one of the apps; yield it, and the headers of a user who is signed in."""
    folder = service.folder / name
    address = f"unix:{folder}/web.sock"
    peer = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(HERE),
        "BENCHMARK_DATABASE_URL": server.database(),
        "BENCHMARK_HOST": DOMAIN,
    }
    gunicorn = f"--bind={address} --workers={workers} --worker-class=gthread".split()
    gunicorn += ["--threads=6", "--config=/dev/null", f"{name}_app:app"]
    headers: dict[str, str] = {}
    if name == "service":
        command = load.gunicorn(service, address, workers)
        peer = service.environment
        headers = {"Cookie": service.run("benchmark_accounts.py")["cookie"]}
    elif name == "bare":
        command = [str(service.python), "-m", "gunicorn", *gunicorn]
    else:
        commands = environment_of(name, service.python)
        command = [str(commands / "gunicorn"), *gunicorn]
        if name == "fastapi":
            command = [str(commands / "uvicorn"), f"--uds={folder}/web.sock"]
            command += [f"--workers={workers}", "--no-access-log", "fastapi_app:app"]
        prepare = [commands / "python", HERE / f"{name}_app.py"]
        ran = subprocess.run(prepare, env=peer, check=True, capture_output=True)
        headers = json.loads(ran.stdout)
    with load.behind_nginx(
        command, address, folder, service=service, workers=workers, environment=peer
    ) as app:
        yield app, headers | {"Host": DOMAIN}


def measure(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Return each round's figures of each kind of request to each app."""
    found: dict[str, Any] = {kind: {name: [] for name in given.only} for kind in KINDS}
    memory = {}
    with Postgres() as server, ExitStack() as stack:
        service = Service(given.service, folder, server.database())
        apps = {
            name: stack.enter_context(running(name, service, server, given.workers))
            for name in given.only
        }
        for number in range(-1, given.rounds):
            for kind, path in KINDS.items():
                for name, (app, headers) in apps.items():
                    sent = headers if kind.startswith("signed") else {"Host": DOMAIN}
                    seconds = given.seconds if number >= 0 else 1
                    before = load.cpu_of_family(server.process.pid)
                    seen, used = load.measured(
                        app, path, given.connections, seconds, sent
                    )
                    database = load.cpu_of_family(server.process.pid) - before
                    if number >= 0:
                        figures = figures_of(seen, used, database)
                        found[kind][name].append(figures)
        for name, (app, _) in apps.items():
            memory[name] = app.pss()
    return found | {"memory": memory}


def figures_of(seen: load.Load, used: list[float], database: float) -> dict[str, Any]:
    """Return a round's figures; processor time is microseconds a request."""
    mean = sum(used) / len(used) or 1
    return {
        "rate": seen.rate,
        "p50": seen.p50,
        "p99": seen.p99,
        "app": 1e6 * sum(used) / max(1, seen.requests),
        "database": 1e6 * database / max(1, seen.requests),
        "failed": seen.failed,
        "workers": used,
        "away": 100 * max(abs(seconds - mean) for seconds in used) / mean,
    }


def show_figures(found: dict[str, Any]) -> None:
    """Print a table for each kind of request, with ratios of the service to the app."""
    for kind in KINDS:
        rows = []
        for name, rounds in found[kind].items():
            names = ("rate", "p50", "p99", "app", "database")
            own = [median(one[figure] for one in rounds) for figure in names]
            ratios = [
                median(
                    mine[figure] / theirs[figure]
                    for mine, theirs in zip(found[kind]["service"], rounds, strict=True)
                )
                for figure in ("rate", "app")
            ]
            rows.append((name, *own, sum(one["failed"] for one in rounds), *ratios))
        show(f"{kind}; ×: the service's figure by this one's", COLUMNS, rows)
    show("Memory, PSS", ("", "MiB"), list(found["memory"].items()))


def main() -> None:
    """Print the figures."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5, help="of each load")
    names = ("service", "bare", "django", "fastapi")
    parser.add_argument("--only", nargs="+", default=names, help="apps to compare")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="peers-") as name:
        Path(name).chmod(0o755)
        found = measure(given, Path(name))
    show_figures(found)
    write(given.json, found)


if __name__ == "__main__":
    main()
