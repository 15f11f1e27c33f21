"""The limits of jobs, in a real worker: what exceeds them ends, the worker goes on."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import delete, update

from bulwark.database import db, utcnow
from bulwark.jobs import runner, runs, state
from bulwark.jobs.runs import JobRun
from tests.bulwark import team_app
from tests.bulwark.jobs import limited
from tests.conftest import ROOT

WAIT = 90  # seconds: starting a worker takes some, and more on a busy machine


def eventually(holds: Callable[[], Any]) -> Any:
    end = time.monotonic() + WAIT
    while not (found := holds()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.1)
    return found


class Worker:
    """`flask worker` on the database of these tests."""

    def __init__(self, app: Flask, notes: Path) -> None:
        self.app, self.notes = app, notes
        self.process: subprocess.Popen[bytes]

    def start(self) -> None:
        url = self.app.config["SQLALCHEMY_DATABASE_URI"]
        environment = os.environ | {
            "APP_DATABASE_URL": url.render_as_string(hide_password=False),
            "JOB_NOTES": str(self.notes),
        }
        flask = [sys.executable, "-m", "flask", "--app", "tests.bulwark.jobs.limited"]
        self.process = subprocess.Popen([*flask, "worker"], cwd=ROOT, env=environment)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(how)
        return self.process.wait(WAIT)

    def add(self, job: Any, *args: Any) -> str:
        with self.app.app_context():
            run_id: str = job(*args).id
            db.session.commit()
        return run_id

    def find(self, run_id: str) -> JobRun:
        with self.app.app_context():
            return db.session.get_one(JobRun, run_id)

    def ended(self, run_id: str) -> JobRun:
        def ended() -> JobRun | None:
            run = self.find(run_id)
            return run if run.state in (runs.DONE, runs.FAILED) else None

        found: JobRun = eventually(ended)
        return found

    def written(self) -> list[tuple[str, int]]:
        """Return what the jobs wrote, with the process that did."""
        lines = self.notes.read_text().splitlines() if self.notes.exists() else []
        return [(text, int(pid)) for text, _, pid in (s.rpartition(" ") for s in lines)]


@pytest.fixture(scope="module")
def worker(
    whole_app: Flask, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Worker]:
    folder = tmp_path_factory.mktemp("limited")
    with team_app.running(whole_app, folder, []) as app:
        worker = Worker(app, folder / "notes")
        worker.start()
        yield worker
        if worker.process.poll() is None:
            worker.stop(signal.SIGKILL)
        with app.app_context():
            db.session.execute(delete(JobRun))
            db.session.commit()


def is_alive(pid: int) -> bool:
    with suppress(OSError):
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
        return state != "Z"
    return False


def test_what_exceeds_a_limit_ends_and_is_recorded_and_the_worker_goes_on(
    worker: Worker,
):
    endless = worker.add(limited.endless)
    hungry = worker.add(limited.hungry)
    died = worker.add(limited.dies)
    well = [worker.add(limited.note, f"well {number}") for number in range(3)]
    assert "took more than 1 seconds" in (worker.ended(endless).error or "")
    assert "needed more than 100 MB" in (worker.ended(hungry).error or "")
    assert "SIGSEGV" in (worker.ended(died).error or "")
    assert all(worker.ended(run_id).is_done for run_id in well)
    texts = dict(worker.written())
    assert 5 <= sum(text.startswith("ate ") for text in texts) <= 10
    (child,) = [t.split()[1] for t in texts if t.startswith("child ")]
    eventually(lambda: not is_alive(int(child)))
    assert worker.process.poll() is None


def test_a_run_of_a_worker_that_is_killed_ends_and_is_tried_again(worker: Worker):
    slow = worker.add(limited.slow)
    (pid,) = eventually(lambda: [p for text, p in worker.written() if text == "slow"])
    worker.stop(signal.SIGKILL)
    eventually(lambda: not is_alive(pid))
    assert worker.find(slow).state == runs.RUNNING
    with worker.app.app_context():
        long_ago = utcnow() - runs.LOST_AFTER - timedelta(minutes=1)
        state.forget(runs._seen_key(slow))
        db.session.execute(update(JobRun).values(started_at=long_ago))
        db.session.commit()
        assert [run.id for run in runs.lost()] == [slow]
        runner._end(slow, 1, runs.LOST, limited.slow.retries)
    assert worker.find(slow).error == runs.LOST
    with worker.app.app_context():
        db.session.execute(update(JobRun).values(due_at=utcnow()))
        db.session.commit()
    worker.start()
    eventually(lambda: [t for t, _ in worker.written()].count("slow") == 2)


def test_a_worker_that_is_stopped_lets_the_running_job_finish(worker: Worker):
    """The run of the test before is still in progress."""
    (*_, pid) = [p for text, p in worker.written() if text == "slow"]
    worker.process.send_signal(signal.SIGTERM)
    time.sleep(1)
    assert worker.process.poll() is None
    assert is_alive(pid)
    worker.stop(signal.SIGKILL)
