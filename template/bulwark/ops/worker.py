"""`flask worker` runs the queued jobs. Its heartbeat and its faults are logged here."""

import click
from flask import Flask
from flask.cli import with_appcontext
from huey import crontab
from huey.api import Task
from huey.signals import SIGNAL_ERROR

from bulwark.audit import events, promises
from bulwark.database import db
from bulwark.jobs import queue
from bulwark.jobs.state import remember_time
from bulwark.jobs.task_queue import Queue, row_refused
from bulwark.mail import outbox
from bulwark.observability.logging import log

WORKERS = 2
MAX_DELAY = 2  # seconds between polls of an idle SQLite queue


def init_app(app: Flask) -> None:
    """Add `flask worker`."""
    app.cli.add_command(worker)


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
    with events.log_lifecycle("worker"):
        promises.log_given_up()
        consumer.run()


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
