"""What a worker stores: server errors by hour, and the certificate that is served."""

import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from flask import Flask
from prometheus_client.mmap_dict import MmapedDict, mmap_key

from bulwark.database import utcnow
from bulwark.jobs import queue
from bulwark.observability import metrics
from bulwark.ops import dev_certificate, status
from tests.conftest import Visitor

REQUESTS = (("/a", "500"), ("/b", "503"), ("/b", "404"), ("/readyz", "503"))


@pytest.fixture
def folder(
    app: Flask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """An empty folder of metrics."""
    settings = replace(app.extensions["bulwark"], metrics_folder=str(tmp_path))
    monkeypatch.setitem(app.extensions, "bulwark", settings)
    queue.flush()
    with app.app_context():
        yield tmp_path


def count(folder: Path, process: int = 0, times: int = 1) -> None:
    """Count as a process does that answers each of `REQUESTS`, two with an error."""
    file = MmapedDict(str(folder / f"counter_{process}.db"))
    for route, code in REQUESTS:
        labels = {"method": "GET", "route": route, "status": code}
        names, values = list(labels), list(labels.values())
        key = mmap_key("http_requests", "http_requests_total", names, values, "")
        file.write_value(key, file.read_value(key)[0] + times, 0)
    file.close()


def count_errors() -> list[int]:
    """Let a worker count; return the counts by hour."""
    status.count_server_errors.call_local()
    return list(status.errors_by_hour().values())


def test_server_errors_of_all_processes_are_counted(folder: Path):
    assert metrics.server_errors(folder) == 0
    for process in range(3):
        count(folder, process)
    assert metrics.server_errors(folder) == 6


def test_a_fault_of_a_view_is_a_server_error(
    app: Flask, visitor: Visitor, monkeypatch: pytest.MonkeyPatch
):
    folder = Path(app.extensions["bulwark"].metrics_folder)
    before = metrics.server_errors(folder)
    monkeypatch.setitem(app.config, "PROPAGATE_EXCEPTIONS", False)
    monkeypatch.setitem(app.view_functions, "security.login", lambda: 1 / 0)
    assert visitor.get("/login").status_code == 500
    assert metrics.server_errors(folder) == before + 1


def test_errors_are_those_since_the_last_count(folder: Path):
    count(folder)
    assert count_errors() == [0]  # of when these are, nobody knows
    count(folder)
    assert count_errors() == [2]
    assert count_errors() == [2]
    count(folder)
    assert count_errors() == [4]


def test_counters_that_restart_lose_nothing(folder: Path):
    count_errors()
    count(folder, times=2)
    assert count_errors() == [4]
    for file in folder.glob("*.db"):
        file.unlink()
    count(folder)
    assert count_errors() == [6]


def test_each_hour_has_its_own_and_only_a_day_is_kept(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    start, hours = utcnow(), {}
    for hour in range(30):
        moment = start + timedelta(hours=hour)
        monkeypatch.setattr(status, "utcnow", lambda moment=moment: moment)
        if hour in (3, 10):
            monkeypatch.setattr(metrics, "server_errors", lambda _, n=hour: n)
        elif hour == 0:
            monkeypatch.setattr(metrics, "server_errors", lambda _: 0)
        count_errors()
        hours = status.errors_by_hour()
    assert len(hours) == 24
    assert min(hours) == status.first_hour()
    assert sorted(hours.values())[-2:] == [0, 7]


def test_a_worker_that_is_slower_counts_nothing_twice(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    count_errors()
    count(folder)
    original = metrics.server_errors

    def count_while_another_does(folder: Path) -> int:
        total = original(folder)
        count(folder)
        monkeypatch.setattr(metrics, "server_errors", original)
        assert count_errors() == [4]
        return total

    monkeypatch.setattr(metrics, "server_errors", count_while_another_does)
    assert count_errors() == [2]
    assert count_errors() == [4]


def test_the_certificate_that_was_seen_is_kept_while_nobody_answers(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    status.store_certificate.call_local()
    assert status.certificate() is None
    dev_certificate.make(folder, "service")
    pem = (folder / "localhost.pem").read_bytes()
    served = x509.load_pem_x509_certificate(pem)
    monkeypatch.setattr(status, "served_certificate", lambda: served)
    status.store_certificate.call_local()
    monkeypatch.setattr(status, "served_certificate", lambda: None)
    status.store_certificate.call_local()
    stored = status.certificate()
    assert stored is not None
    assert stored.ends == served.not_valid_after_utc
    assert stored.days_left == dev_certificate.LIFE.days - 1
    assert stored.life_left == pytest.approx(1, abs=0.001)


def test_who_does_not_answer_is_not_waited_for(
    folder: Path, app: Flask, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(status, "TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"https://127.0.0.1:{silent.getsockname()[1]}"
        settings = replace(app.extensions["bulwark"], base_url=address)
        monkeypatch.setitem(app.extensions, "bulwark", settings)
        start = time.monotonic()
        assert status.served_certificate() is None
        assert time.monotonic() - start < 5
