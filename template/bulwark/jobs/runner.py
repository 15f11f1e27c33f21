"""Runs what is due: in a worker in processes of its own, elsewhere in this one."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from blinker import Signal
from huey import crontab

from bulwark.database import db
from bulwark.jobs import queue, rows, runs
from bulwark.jobs.definitions import JOBS, Current, Job, current_run
from bulwark.jobs.processes import Process, ProcessEndedError, lift_memory_limit
from bulwark.jobs.runs import JobRun
from bulwark.observability.logging import log, shape

AT_ONCE = 2  # runs at the same time in one worker

# Sent in an app context: with the `error` after a try, with the run after the last one.
try_failed, gave_up = Signal(), Signal()


class Runner:
    """The processes of a worker, and how many of them may run jobs."""

    def __init__(self) -> None:
        self.command: list[str] = []
        self.stopping = threading.Event()
        self._slots = threading.BoundedSemaphore(AT_ONCE)
        self._idle: list[Process] = []

    @contextmanager
    def using(self, command: list[str], stopping: threading.Event) -> Iterator[None]:
        """Run jobs in processes that a command starts, until `stopping` is set."""
        self.command, self.stopping = command, stopping
        try:
            yield
        finally:
            self.command, self.stopping = [], threading.Event()
            while self._idle:
                self._idle.pop().stop()

    def run_due(self) -> None:
        """Run what is due, unless enough runs are in progress: those go on with it."""
        while self._slots.acquire(blocking=False):
            try:
                while not self.stopping.is_set() and (run := runs.claim()):
                    self._try(run)
            finally:
                self._slots.release()
            # One that became due just before the slot was free woke nobody.
            if self.stopping.is_set() or not runs.is_any_due():
                return

    def _try(self, run: JobRun) -> None:
        run_id, tries, name = run.id, run.tries, run.name
        db.session.remove()
        found = JOBS.get(name)
        if found is None:
            error = f"This release has no job with the name {name}."
        elif self.command:
            error = self._in_a_process(run_id, found)
        else:
            error = perform(run_id)
        _end(run_id, tries, error, found.retries if found else 0)

    def _in_a_process(self, run_id: str, found: Job[...]) -> str:
        try:
            process = self._idle.pop()
        except IndexError:
            process = Process(self.command)
        try:
            error = process.run(
                run_id, found.time_limit, found.memory_limit, lambda: _see(run_id)
            )
        except ProcessEndedError as ended:
            try_failed.send(found, error=ended)
            return str(ended)
        except BaseException:
            process.kill()
            raise
        if process.is_reusable:
            self._idle.append(process)
        else:
            process.stop()
        return error


runner = Runner()


def _see(run_id: str) -> None:
    """Store that the run is in progress; a job survives a database that is down."""
    try:
        runs.saw(run_id)
    except Exception:  # noqa: BLE001
        log.warning("job_not_marked", exc_info=True)


def _end(run_id: str, tries: int, error: str, retries: int) -> None:
    ended = runs.end(run_id, tries, error, retries)
    if ended is None and error:
        wake(delay=runs.FIRST_WAIT)
    elif ended is not None and ended.has_failed:
        gave_up.send(ended)
    db.session.remove()


def perform(run_id: str) -> str:
    """Run a job in this process; return why it failed, or ""."""
    run = db.session.get_one(JobRun, run_id)
    found = JOBS[run.name]
    token = current_run.set(Current(run_id))
    try:
        args, kwargs = rows.unpack(run.arguments or "")
        db.session.remove()
        found.function(*args, **kwargs)
    except (Exception, SystemExit) as error:  # noqa: BLE001  whatever the team raises
        lift_memory_limit()
        db.session.rollback()
        try_failed.send(found, error=error)
        return describe(error)
    finally:
        current_run.reset(token)
        db.session.remove()
    return ""


def describe(error: BaseException) -> str:
    """Return an error in one line, without secrets and addresses."""
    text = shape.clean_text(" ".join(str(error).split())[: runs.ERROR_LENGTH])
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


# --- Waking a worker ----------------------------------------------------------


@queue.task(name="run_jobs")  # type: ignore[untyped-decorator]
def _run_in_worker() -> None:
    runner.run_due()


def wake(delay: int = 0) -> None:
    """Wake a worker. If the queue is down, the job of each minute does it."""
    try:
        _run_in_worker.schedule(delay=delay) if delay else _run_in_worker()
    except Exception:  # noqa: BLE001  in any case, the run is safe in the table
        log.warning("queue_unreachable", exc_info=True)


@runs.became_due.connect
def _became_due(_: object) -> None:
    wake()


@queue.periodic_task(crontab(), name="run_waiting_jobs")  # type: ignore[untyped-decorator]
def _run_each_minute() -> None:
    """End the tries whose worker was killed, then run what is due."""
    for run in runs.lost():
        log.warning("job_interrupted", job=run.name)
        found = JOBS.get(run.name)
        _end(run.id, run.tries, runs.LOST, found.retries if found else 0)
    runner.run_due()


@queue.periodic_task(crontab(hour="3", minute="37"), name="forget_old_jobs")  # type: ignore[untyped-decorator]
def _forget_old() -> None:
    runs.forget_old()
