"""gunicorn's workers share a burst of requests, whichever of them wakes up first."""

import os
import socket
import subprocess
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.servers import eventually, running

WORKERS, THREADS = 2, 6  # gunicorn.conf.py sets the threads
SLOW = """
import os, time
from wsgi import app as service

def app(environ, start_response):
    time.sleep(1)
    body = str(os.getpid()).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]

app.app_context = service.app_context
"""


@pytest.fixture
def address(ready: Path, tmp_path: Path) -> Iterator[Path]:
    """Run the service's gunicorn with a view that waits; return its socket."""
    (tmp_path / "slow.py").write_text(SLOW)
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(tmp_path),
        "APP_ENV": "testing",
        "APP_METRICS_FOLDER": str(tmp_path / "metrics"),
    }
    address = tmp_path / "web.sock"
    gunicorn = (ready / ".venv/bin/gunicorn", f"--bind=unix:{address}")
    with running(
        *gunicorn,
        f"--workers={WORKERS}",
        "slow:app",
        log=tmp_path / "log",
        cwd=ready,
        env=environment,
    ) as server:
        eventually(lambda: len(children(server)) == WORKERS and address.exists())
        # Both serve: a worker that has just been forked would miss the burst.
        eventually(lambda: len(burst(address)) == WORKERS)
        yield address


def children(server: subprocess.Popen[bytes]) -> list[str]:
    return Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()


def burst(address: Path) -> Counter[bytes]:
    """Send as many requests at once as all threads can serve; count by worker."""

    def send(_: int) -> bytes:
        with socket.socket(socket.AF_UNIX) as stream:
            stream.connect(str(address))
            stream.sendall(
                b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            )
            answer = b"".join(iter(lambda: stream.recv(65536), b""))
        return answer.rpartition(b"\r\n\r\n")[2]

    with ThreadPoolExecutor(WORKERS * THREADS) as pool:
        return Counter(pool.map(send, range(WORKERS * THREADS)))


def test_a_burst_occupies_every_thread_of_every_worker(address: Path) -> None:
    for _ in range(5):
        assert [*burst(address).values()] == [THREADS] * WORKERS
