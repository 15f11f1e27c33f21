"""Work outside the request: Huey on the service's own database, run by `flask worker`.

@queue.task(retries=3, retry_delay=60)
def make_report(month: str) -> None: ...

make_report("2026-11")       # queued; a worker runs it with an app context
"""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from flask import Flask
from flask.cli import with_appcontext
from huey import Huey, crontab
from huey.api import Task
from huey.constants import EmptyData
from huey.signals import SIGNAL_ERROR
from huey.storage import MemoryStorage, PostgresStorage, SqliteStorage

from bulwark import events
from bulwark.config import Config
from bulwark.database import database_url

WORKERS = 2
MAX_DELAY = 2  # seconds between looks at an idle SQLite queue


class Queue(Huey):  # type: ignore[misc]
    """A Huey whose storage is chosen by the app, and whose tasks run inside it."""

    app: Flask

    def __init__(self) -> None:
        super().__init__("jobs", results=False, storage_class=MemoryStorage)

    def init_app(self, app: Flask, config: Config) -> None:
        """Keep the queue in the app's kind of database."""
        self.app = app
        url = database_url(config)
        if url.get_backend_name() == "postgresql":
            dsn = url.set(drivername="postgresql").render_as_string(hide_password=False)
            self.storage_class = PostgresStorage
            self.storage_kwargs = {"dsn": dsn, "create_tables": False}
        elif url.database in (None, "", ":memory:"):
            self.storage_class, self.storage_kwargs = MemoryStorage, {}
        else:
            path = Path(str(url.database)).with_suffix(".jobs.db")
            self.storage_class = SqliteStorage
            self.storage_kwargs = {"filename": str(path), "create_tables": False}
        self.storage = self.create_storage()

    def create_tables(self) -> None:
        """Make what the queue needs in the database; nothing when it is there."""
        if hasattr(self.storage, "initialize_schema"):
            self.storage.initialize_schema()

    def execute(self, task: Any, timestamp: Any = None) -> Any:
        """Run a task with the app's context, as a view has it."""
        with self.app.app_context():
            return super().execute(task, timestamp)


queue = Queue()


def note(what: str) -> None:
    """Remember that something was done just now, for whoever watches over it."""
    queue.storage.put_data(what.encode(), datetime.now(UTC).isoformat().encode())


def noted(what: str) -> datetime | None:
    """Return when something was last done; None if never."""
    found = queue.storage.peek_data(what.encode())
    return None if found is EmptyData else datetime.fromisoformat(bytes(found).decode())


def keep(what: str, facts: object) -> None:
    """Remember facts that JSON can say, in place of what was remembered before."""
    queue.storage.put_data(what.encode(), json.dumps(facts).encode())


def kept(what: str) -> Any:
    """Return the facts that are remembered; None if there are none."""
    found = queue.storage.peek_data(what.encode())
    return None if found is EmptyData else json.loads(bytes(found))


@queue.periodic_task(crontab(), name="show_sign_of_life")  # type: ignore[untyped-decorator]
def show_sign_of_life() -> None:
    """Let it be seen that a worker runs."""
    note("sign of life")


@queue.signal(SIGNAL_ERROR)  # type: ignore[untyped-decorator]
def _tell_fault(_: str, task: Task, error: Exception) -> None:
    events.tell("sys_error", job=task.name, exc_info=error)


def init_app(app: Flask, config: Config) -> None:
    """Connect the queue, and add `flask worker`."""
    queue.init_app(app, config)
    app.cli.add_command(worker)


@click.command()
@with_appcontext
def worker() -> None:
    """Run queued work until it is stopped."""
    queue.create_tables()
    consumer = queue.create_consumer(
        workers=WORKERS,
        max_delay=MAX_DELAY,
        # What systemd, containers and bin/dev send: let running work finish.
        graceful_signal="TERM",
    )
    with events.told("worker"):
        consumer.run()
