"""The benchmarks of requests run and count correctly; nothing here is timed."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.measuring import ROOT

pytestmark = pytest.mark.needs("postgresql")
SIGNED_IN = ("signed-in JSON", "signed-in page", "access token")


def benchmark(name: str, service: Path, folder: Path, *options: str) -> Any:
    """Run a benchmark as briefly as it can; return the JSON that it writes."""
    figures = folder / "figures.json"
    command = [sys.executable, "-m", f"tests.benchmarks.{name}", *options]
    command += [f"--service={service}", f"--json={figures}", "--rounds=1"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(figures.read_text())


def test_a_request_is_compared_and_counted(ready: Path, tmp_path: Path) -> None:
    figures = benchmark("request", ready, tmp_path, "--each=3")
    for kinds in figures.values():
        assert all(found["ratio"] > 0 for found in kinds.values())
        assert kinds["anonymous JSON"]["statements"] == 0
        assert all(kinds[kind]["statements"] >= 1 for kind in SIGNED_IN)
    kinds = figures["PostgreSQL"]
    assert kinds["anonymous page"]["round trips"] == 0
    assert all(kinds[kind]["round trips"] >= 1 for kind in SIGNED_IN)


@pytest.mark.needs("nginx", "wrk")
def test_peers_get_the_same_load(ready: Path, tmp_path: Path) -> None:
    options = ("--only", "service", "bare", "--seconds=1", "--connections=2")
    figures = benchmark("peers", ready, tmp_path, *options)
    for kind in ("JSON", "page", "signed-in JSON"):
        for app in ("service", "bare"):
            (one,) = figures[kind][app]
            assert one["failed"] == 0
            assert len(one["workers"]) == 2
    assert figures["memory"]["service"] > figures["memory"]["bare"]


@pytest.mark.needs("nginx", "wrk")
def test_data_threads_and_connections_grow(ready: Path, tmp_path: Path) -> None:
    data = ("--sizes", "20", "40", "--requests=10")
    loads = ("--threads", "2", "--connections", "4", "--seconds=1")
    figures = benchmark("scale", ready, tmp_path, *data, *loads)
    assert [row["users"] for row in figures["users"]] == [20, 40]
    for row in (*figures["threads"], *figures["connections"]):
        assert row["failed"] == 0


@pytest.mark.needs("nginx", "wrk")
def test_the_share_of_each_worker_is_measured(ready: Path, tmp_path: Path) -> None:
    figures = benchmark("spread", ready, tmp_path, "--seconds=1", "--workers=2")
    for rounds in figures.values():
        assert [len(one["used"]) for one in rounds] == [2]
