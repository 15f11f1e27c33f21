"""Servers under load for benchmarks: nginx, gunicorn's workers, wrk, what they use."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.measuring import Service
from tests.support.servers import PATH, PATIENCE, eventually, free_port, wait_for_port

Headers = Mapping[str, str]
TICK = os.sysconf("SC_CLK_TCK")
UNITS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}
LATENCY = r"^\s+{}%\s+([\d.]+)(us|ms|s|m)\s*$"


@dataclass(frozen=True)
class Load:
    """What wrk saw: requests a second, milliseconds, and how many requests failed."""

    rate: float
    p50: float
    p99: float
    requests: int
    failed: int


def wrk(url: str, connections: int, seconds: float, headers: Headers) -> Load:
    """Send requests over so many connections, as fast as they are answered."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency"]
    command += [f"-H{name}: {value}" for name, value in headers.items()]
    ran = subprocess.run(
        [*command, "--timeout=30s", url], capture_output=True, text=True, check=True
    )

    def number(pattern: str) -> float:
        found = re.search(pattern, ran.stdout, re.MULTILINE)
        return float(found[1]) if found else 0.0

    def milliseconds(percent: int) -> float:
        found = re.search(LATENCY.format(percent), ran.stdout, re.MULTILINE)
        assert found, ran.stdout
        return float(found[1]) * UNITS[found[2]]

    errors = re.search(r"connect (\d+), read (\d+), write (\d+), timeout", ran.stdout)
    failed = number(r"Non-2xx or 3xx responses: (\d+)")
    return Load(
        rate=number(r"^Requests/sec:\s+([\d.]+)"),
        p50=milliseconds(50),
        p99=milliseconds(99),
        requests=int(number(r"^\s+(\d+) requests in")),
        failed=int(failed + sum(map(int, errors.groups() if errors else ()))),
    )


def children(process: int) -> list[int]:
    """Return the processes that a process started and that still run."""
    found = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [int(number) for number in found]


def cpu(process: int) -> float:
    """Return the seconds of processor time that a process has used."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def cpu_of_family(process: int) -> float:
    """Return the seconds of a process and of all that it started, ended ones too."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    total = sum(map(int, fields[11:15])) / TICK
    for child in children(process):
        with suppress(OSError):
            total += cpu(child)
    return total


def pss(process: int) -> float:
    """Return a process's share of memory, in MiB; shared pages are divided."""
    text = Path(f"/proc/{process}/smaps_rollup").read_text()
    found = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) / 1024 if found else 0.0


@dataclass
class Server:
    """A server with its workers; `url` is that of nginx in front of it."""

    process: subprocess.Popen[bytes]
    url: str
    workers: list[int]

    def used(self) -> list[float]:
        """Return the seconds of processor time that each worker has used."""
        return [cpu(worker) for worker in self.workers]

    def pss(self) -> float:
        """Return the memory of the server and of its workers, in MiB."""
        return sum(map(pss, (self.process.pid, *self.workers)))


def measured(
    server: Server, path: str, connections: int, seconds: float, headers: Headers
) -> tuple[Load, list[float]]:
    """Put load on a server; return what wrk saw, and what each worker used."""
    before = server.used()
    seen = wrk(server.url + path, connections, seconds, headers)
    after = server.used()
    return seen, [new - old for new, old in zip(after, before, strict=True)]


@contextmanager
def behind_nginx(
    command: Sequence[str | Path],
    address: str,
    folder: Path,
    *,
    service: Service,
    workers: int,
    environment: Headers,
    upstream: str = "",
) -> Iterator[Server]:
    """Run a server behind nginx while the block lasts.

    Args:
        command: what starts the server, in the folder of the service.
        address: where the server listens, as nginx writes it.
        folder: a new folder for the files of both.
        service: the service whose proxy.conf nginx uses.
        workers: how many workers the server starts.
        environment: the server's environment.
        upstream: further lines of nginx's upstream.
    """
    folder.mkdir(parents=True)
    log = folder / "log"
    with (
        serving(command, service.root, environment, log) as process,
        nginx(service.root, folder / "nginx", address, upstream) as port,
    ):
        server = Server(process, f"http://127.0.0.1:{port}", [])

        def started() -> bool:
            assert process.poll() is None, log.read_text()
            server.workers = children(process.pid)
            return len(server.workers) >= workers

        eventually(started)
        time.sleep(1)
        yield server


def gunicorn(service: Service, address: str, workers: int, *options: str) -> list[str]:
    """Return the command that runs the service with its own gunicorn.conf.py."""
    python = [str(service.python), "-m", "gunicorn", f"--bind={address}"]
    return [*python, f"--workers={workers}", *options, "benchmark_views:app"]


@contextmanager
def serving(
    command: Sequence[str | Path],
    folder: Path,
    environment: Headers,
    log: Path,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server while the block lasts; `log` gets all that it writes."""
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, cwd=folder, env=dict(environment), stdout=file, stderr=file
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:  # its figures are there already
            process.kill()
            process.wait()


@contextmanager
def nginx(
    service: Path, folder: Path, upstream: str, options: str = ""
) -> Iterator[int]:
    """Run nginx in front of an upstream, as the service's proxy.conf passes requests.

    Without TLS and limits, which one client with many connections would exceed. Yield
    its port.

    Args:
        service: the service whose `deploy/nginx/proxy.conf` is used.
        folder: an empty folder for its files.
        upstream: the address of the server, as nginx writes it.
        options: further lines of the upstream.
    """
    folder.mkdir(parents=True, exist_ok=True)
    proxy = (service / "deploy/nginx/proxy.conf").read_text()
    proxy = proxy.replace("$scheme", "https")  # the service answers HTTPS only
    if options:
        proxy = proxy.replace("Connection close;", 'Connection "";')
    (folder / "proxy.conf").write_text(proxy)
    port = free_port()
    paths = ("client_body", "proxy", "fastcgi", "scgi", "uwsgi")
    temporary = "\n".join(f"{name}_temp_path {folder}/{name};" for name in paths)
    (folder / "nginx.conf").write_text(f"""
        {"user root;" if os.geteuid() == 0 else ""}
        pid {folder}/nginx.pid;
        error_log {folder}/error.log;
        worker_processes 1;
        events {{ worker_connections 4096; }}
        http {{
            access_log off;
            {temporary}
            upstream measured {{ server {upstream}; {options} }}
            server {{
                listen 127.0.0.1:{port} backlog=4096;
                keepalive_requests 1000000;
                include {folder}/proxy.conf;
                location / {{ proxy_pass http://measured; }}
            }}
        }}
    """)
    command = ["nginx", "-e", "stderr", "-c", str(folder / "nginx.conf")]
    command += ["-g", "daemon off;"]
    environment = {"PATH": PATH}
    with serving(command, folder, environment, folder / "log") as server:
        wait_for_port(port, server)
        yield port
