"""Measures what is left for others while sixteen connections post sign-ins.

    .venv/bin/python -m tests.benchmarks.storm [.venv of a service]

A service of this template, behind nginx with TLS. Others open the sign-in page over
four connections, as fast as they are answered: alone, in a storm from one address,
alone, in a storm from many addresses, in turn. Takes two minutes.
"""

import multiprocessing
import os
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from tests.support.under_load import Client, fresh_address, running_site

STORM, OTHERS = 16, 4
ROUNDS, SECONDS = 4, 4.0
# A storm from many addresses leaves each before it is refused there.
TRIES_PER_ADDRESS = 10


def others(port: int, certificate: Path, seconds: float) -> list[float]:
    """Open pages for a while; return how long each took."""
    took: list[float] = []

    def visit() -> None:
        client = Client(port, certificate)
        client.ask("/login")
        while time.perf_counter() < end:
            started = time.perf_counter()
            status = client.ask("/login").status
            assert status == 200, status
            took.append(time.perf_counter() - started)

    end = time.perf_counter() + seconds
    in_threads(OTHERS, visit)
    return took


def storm(
    port: int, certificate: Path, many: bool, ready: Event, over: Event, results: Any
) -> None:
    """Post sign-ins until it is over; count the answers by status."""
    os.nice(19)  # What it costs to send them is paid elsewhere.
    statuses: Counter[int] = Counter()
    numbers = iter(range(10**9))
    ready_each = threading.Barrier(STORM, action=ready.set)
    one = fresh_address()

    def post() -> None:
        client = Client(port, certificate, "" if many else one)
        client.ask("/login")
        ready_each.wait()
        while not over.is_set():
            number = next(numbers)
            if many and number % TRIES_PER_ADDRESS == 0:
                client.move(fresh_address())
            name = f"{time.time_ns()}-{number}@bulwark-tests.net"
            status = client.submit("/login", email=name, password="wrong").status
            statuses[status] += 1

    in_threads(STORM, post)
    results.put(statuses)


def in_threads(number: int, work: Callable[[], None]) -> None:
    threads = [threading.Thread(target=work) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def during_storm(
    port: int, certificate: Path, many: bool
) -> tuple[list[float], Counter[int]]:
    """Return how long others waited in a storm, and what the storm was answered."""
    context = multiprocessing.get_context("spawn")
    ready, over, results = context.Event(), context.Event(), context.Queue()
    process = context.Process(
        target=storm, args=(port, certificate, many, ready, over, results)
    )
    process.start()
    try:
        assert ready.wait(30)
        time.sleep(1)  # past the burst that nginx and the limit let through
        took = others(port, certificate, SECONDS)
        over.set()
        statuses = results.get(timeout=30)
    finally:
        over.set()
        process.join(30)
    return took, statuses


def p99(values: list[float]) -> float:
    return statistics.quantiles(values, n=100)[98]


def main() -> None:
    with running_site() as site:
        where = site.nginx.ports[443], site.nginx.certificate
        others(*where, 3)  # warm
        rates: dict[str, list[float]] = {}
        times: dict[str, list[float]] = {}
        for _ in range(ROUNDS):
            for name, many in (("one address", False), ("many addresses", True)):
                alone = others(*where, SECONDS)
                took, statuses = during_storm(*where, many)
                for key, values in ((f"before {name}", alone), (name, took)):
                    rates.setdefault(key, []).append(len(values) / SECONDS)
                    times.setdefault(key, []).extend(values)
                answers = ", ".join(f"{n} × {s}" for s, n in sorted(statuses.items()))
                print(f"  {name}: the storm was answered {answers}")
    for name in ("one address", "many addresses"):
        rate = [statistics.median(rates[key]) for key in (name, f"before {name}")]
        tail = [1000 * p99(times[key]) for key in (name, f"before {name}")]
        print(
            f"storm from {name}: others {rate[0]:.0f} requests a second, alone"
            f" {rate[1]:.0f}: {rate[0] / rate[1]:.2f} ×; p99 {tail[0]:.1f} ms, alone"
            f" {tail[1]:.1f}: {tail[0] / tail[1]:.1f} ×"
        )


if __name__ == "__main__":
    main()
