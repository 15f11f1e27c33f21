"""Measures false alarms: an ordinary hour, watched with the rules as they are.

    .venv/bin/python -m tests.benchmarks.quiet [minutes]

A service with its proxy, its worker and its metrics runs, and Prometheus beside it.
"""

import sys
import tempfile
import time
from pathlib import Path

from tests.conftest import ROOT
from tests.support.traffic import alarms, watched_traffic
from tests.support.watched import Watched, make_service

PAUSE = 3  # seconds from one visitor to the next: some requests a second


def main(minutes: float) -> None:
    with tempfile.TemporaryDirectory(prefix="bulwark-quiet-") as name:
        folder = Path(name)
        make_service(ROOT, folder)
        service = Watched(folder, proxy=True)
        with watched_traffic(service, folder, 1, people=20, with_codes=5) as (
            traffic,
            chain,
        ):
            begun = time.monotonic()
            traffic.go_on(minutes * 60, PAUSE)
            seconds = time.monotonic() - begun
            print(
                f"{traffic.requests:,} requests in {seconds:,.0f} s,"
                f" the slowest took {traffic.slowest:.1f} s"
            )
            for state in ("pending", "firing"):
                found = sorted(alarms(chain, seconds, state))
                print(f"{len(found)} alerts were {state} {' '.join(found)}")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 60)
