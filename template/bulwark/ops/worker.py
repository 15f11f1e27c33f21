"""`flask worker` runs the queued jobs. Its heartbeat and its faults are logged here."""

import sys

import click
from flask import Flask
from flask.cli import ScriptInfo, with_appcontext
from huey import crontab
from huey.api import Task
from huey.signals import SIGNAL_ERROR

from bulwark.audit import events, promises
from bulwark.database import db
from bulwark.jobs import processes, queue, runner
from bulwark.jobs.definitions import Job
from bulwark.jobs.runs import JobRun
from bulwark.jobs.state import remember_time
from bulwark.jobs.task_queue import Queue, row_refused
from bulwark.mail import outbox
from bulwark.observability.logging import LONG_RUNNING, log

# Threads: so many run the team's jobs, and two deliver email and the like meanwhile.
WORKERS = 2 + runner.AT_ONCE
MAX_DELAY = 2  # seconds between polls of an idle SQLite queue


def init_app(app: Flask) -> None:
    """Add `flask worker`, and what it starts."""
    app.cli.add_command(worker)
    app.cli.add_command(run_jobs)


@click.command()
@with_appcontext
def worker() -> None:
    """Run queued jobs until stopped."""
    queue.create_tables()
    renew_rows(queue)
    consumer = queue.create_consumer(
        workers=WORKERS,
        max_delay=MAX_DELAY,
        # systemd, containers and bin/dev send SIGTERM: running jobs can finish.
        graceful_signal="TERM",
    )
    with (
        events.log_lifecycle("worker"),
        runner.runner.using(_command_of_processes(), consumer.stop_flag),
    ):
        promises.log_given_up()
        consumer.run()


@click.command(hidden=True)
@click.argument("number", type=int)
@with_appcontext
def run_jobs(number: int) -> None:
    """Run jobs that a worker sends through a socket; `flask worker` starts this."""
    click.get_current_context().meta[LONG_RUNNING] = True
    processes.serve(number, runner.perform)


def _command_of_processes() -> list[str]:
    """Return the command that starts a process for jobs, on the same app."""
    info = click.get_current_context().find_object(ScriptInfo)
    path = info.app_import_path if info else None
    app = ["--app", path] if path else []
    return [sys.executable, "-m", "flask", *app, "run-jobs"]


def renew_rows(jobs: Queue) -> None:
    """Sign waiting rows with the first key, and record how many it adopted."""
    if adopted := jobs.renew_rows():
        events.record("sys_jobs_adopted", count=adopted)
        db.session.commit()


@queue.periodic_task(crontab(), name="show_sign_of_life")  # type: ignore[untyped-decorator]
def show_sign_of_life() -> None:
    """Store a heartbeat, which shows that a worker is running."""
    remember_time("sign of life")


@queue.signal(SIGNAL_ERROR)  # type: ignore[untyped-decorator]
def _job_failed(_: str, task: Task, error: Exception) -> None:
    events.emit("sys_error", job=task.name, exc_info=error)


@runner.try_failed.connect
def _try_failed(job: Job[...], error: BaseException) -> None:
    events.emit("sys_error", job=job.name, exc_info=error)


@runner.gave_up.connect
def _gave_up(run: JobRun) -> None:
    events.emit("sys_job_failed", job=run.name, reason=run.error or "")


@row_refused.connect
def _row_refused(_: Queue, reason: str) -> None:
    """Record that a row was rejected; the worker continues in any case."""
    try:
        events.record("sys_job_refused", reason=reason)
        db.session.commit()
    except Exception:  # noqa: BLE001
        db.session.rollback()
        log.critical("job_refused", reason=reason, exc_info=True)


@outbox.dropped.connect
def _mail_dropped(email: outbox.OutgoingMail, reason: str) -> None:
    events.emit("sys_mail_dropped", reason=reason, mail=str(email.id))
