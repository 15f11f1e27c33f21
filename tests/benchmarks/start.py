"""Measures how long a new service takes to respond, and a refused start to fail.

    .venv/bin/python tests/benchmarks/start.py

Clones this checkout into a temporary folder with an empty HOME, and times
`bin/new … --defaults --run` until the first HTTPS 200: cold, then warm for a second
service. Then it starts a production server that must refuse, and compares it with
`import flask` in the same environment. Downloads packages; takes about two minutes.
"""

import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from ssl import create_default_context

ROOT = Path(__file__).parents[2]
PATIENCE = 300
ROUNDS = 5


def answers(service: Path) -> bool:
    """Tell whether the service answers over HTTPS with its own certificate."""
    try:
        tls = create_default_context(cafile=str(service / "instance/tls/authority.pem"))
        with urllib.request.urlopen(
            "https://localhost:8443/", context=tls, timeout=2
        ) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def time_to_first_answer(checkout: Path, service: Path, home: Path) -> float:
    """Run `bin/new … --run` and return the seconds until it answers."""
    own = {k: v for k, v in os.environ.items() if not k.startswith(("APP_", "UV"))}
    started = time.perf_counter()
    run = subprocess.Popen(
        [checkout / "bin/new", service, "--defaults", "--run"],
        env=own | {"HOME": str(home)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        while not answers(service):
            if time.perf_counter() - started > PATIENCE or run.poll() is not None:
                sys.exit(f"{service} did not answer; run bin/new by hand to see why")
            time.sleep(0.1)
        return time.perf_counter() - started
    finally:
        os.killpg(run.pid, signal.SIGTERM)
        run.wait()


def seconds(command: list[str], service: Path, **environment: str) -> tuple[float, str]:
    """Run a command in the service; return how long it took, and its output."""
    started = time.perf_counter()
    ran = subprocess.run(
        command,
        cwd=service,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return time.perf_counter() - started, ran.stderr


def main() -> None:
    """Print the figures."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        home, checkout = folder / "home", folder / "checkout"
        home.mkdir()
        subprocess.run(["git", "clone", "--quiet", ROOT, checkout], check=True)
        cold = time_to_first_answer(checkout, folder / "first", home)
        warm = time_to_first_answer(checkout, folder / "second", home)
        print(f"first HTTPS 200 after bin/new: {cold:.1f} s cold, {warm:.1f} s warm")

        service = folder / "second"
        python = str(service / ".venv/bin/python")
        gunicorn = [python, "-m", "gunicorn", "--bind", "127.0.0.1:0", "wsgi:app"]
        refused, flask = [], []
        for _ in range(ROUNDS):
            took, output = seconds(
                gunicorn, service, APP_ENV="production", ENV_FILE="/nonexistent"
            )
            if not re.match(r"\d+ problems", output):
                sys.exit(f"the server was not refused:\n{output}")
            refused.append(took)
            flask.append(seconds([python, "-c", "import flask"], service)[0])
        took = statistics.median(refused)
        ratio = took / statistics.median(flask)
        print(f"a refused production server: {took:.2f} s, {ratio:.1f} × import flask")


if __name__ == "__main__":
    main()
