"""The queue: Huey with signed rows, in the database of the service."""

from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
from blinker import Signal
from flask import Flask
from huey import Huey
from huey.api import Task
from huey.exceptions import HueyException
from huey.registry import Message
from huey.registry import Registry as HueyRegistry
from huey.storage import MemoryStorage, PostgresStorage, SqliteStorage
from psycopg.conninfo import make_conninfo

from bulwark.database.engine import (
    POSTGRESQL,
    database_url,
    fit_to_server,
    make_private,
)
from bulwark.jobs import old_rows
from bulwark.jobs.rows import FORMAT, ArgumentError, RowRefusedError, SignedJSON
from bulwark.settings import Config

# Each table with signed rows, its key and the column of the rows.
ROWS = (("task", "id", "data"), ("schedule", "id", "data"), ("kv", "key", "value"))
SIGNED_SINCE = "rows are signed since"
# How long processes of an earlier release may still add unsigned rows.
OLD_ROWS = timedelta(hours=1)
# Sent by a queue in an app context, with the `reason`, for each row that is not run.
row_refused = Signal()


class Registry(HueyRegistry):  # type: ignore[misc]
    """Names each job of the base `bulwark.NAME`, whichever module it is in.

    A row of the queue names its job. So the base's jobs can move to another module, and
    rows that an earlier release added still run.
    """

    def task_to_string(self, task_class: type[Task]) -> str:
        """Return the name of a job, as rows contain it."""
        return _without_module(super().task_to_string(task_class))

    def string_to_task(self, task_str: str) -> type[Task]:
        """Return the job with a name."""
        found: type[Task] = super().string_to_task(_without_module(task_str))
        return found


class Queue(Huey):  # type: ignore[misc]
    """A Huey whose storage depends on the app, and whose tasks run in its context."""

    app: Flask

    def __init__(self) -> None:
        super().__init__(
            "jobs",
            results=False,
            storage_class=MemoryStorage,
            serializer=SignedJSON(),
        )
        self._registry = Registry()
        self._old_rows_until: datetime | None = None

    def init_app(self, app: Flask, config: Config) -> None:
        """Store the queue in the app's kind of database, signed with its keys."""
        self.app = app
        self.serializer = SignedJSON(config.encryption_keys)
        url = database_url(config)
        if url.get_backend_name() == "postgresql":
            # In libpq's own form: it rejects some URLs of SQLAlchemy, and shows them.
            _, options = url.get_dialect()().create_connect_args(url)
            dsn = make_conninfo(**{**POSTGRESQL, **options})
            self.storage_class = PostgresStorage
            connect = partial(_connect, dsn)
            self.storage_kwargs = {"connection": connect, "create_tables": False}
        elif url.database in (None, "", ":memory:"):
            self.storage_class, self.storage_kwargs = MemoryStorage, {}
        else:
            path = Path(str(url.database)).with_suffix(".jobs.db")
            self.storage_class = SqliteStorage
            self.storage_kwargs = {"filename": str(path), "create_tables": False}
        self.storage = self.create_storage()

    def create_tables(self) -> None:
        """Create the queue's tables in the database, if they do not exist."""
        if file := self.storage_kwargs.get("filename"):
            make_private(str(file))
        if hasattr(self.storage, "initialize_schema"):
            self.storage.initialize_schema()

    def execute(self, task: Any, timestamp: Any = None) -> Any:
        """Run a task in an app context."""
        with self.app.app_context():
            return super().execute(task, timestamp)

    # --- Rejecting rows ---------------------------------------------------------------

    def dequeue(self) -> Task | None:
        """Return the next job; rows that are not jobs are rejected and skipped."""
        while (data := self.storage.dequeue()) is not None:
            if (task := self._task(bytes(data))) is not None:
                return task
        return None

    def read_schedule(self, timestamp: Any = None) -> list[Task]:
        """Return the jobs that are due; rows that are not jobs are rejected."""
        due = self.storage.read_schedule(timestamp or self._get_timestamp())
        tasks = [self._task(bytes(data)) for data in due]
        return [task for task in tasks if task is not None]

    def deserialize_task(self, data: bytes) -> Task:
        """Return the job of a row.

        Raises:
            RowRefusedError: this service did not write it, or has no such job.
        """
        message = self._read(data)
        if not isinstance(message, Message):
            raise RowRefusedError("it is not a job")
        try:
            return self._registry.create_task(message)
        except HueyException:
            raise RowRefusedError("this release has no job with its name") from None

    def _read(self, data: bytes) -> Any:
        until = self._old_rows_until
        if data.startswith(old_rows.START) and until and datetime.now(UTC) < until:
            return old_rows.read(data)
        return self.serializer.deserialize(data)

    def _task(self, data: bytes) -> Task | None:
        try:
            return self.deserialize_task(data)
        except RowRefusedError as error:
            with self.app.app_context():
                row_refused.send(self, reason=str(error))
        return None

    # --- Key rotation, and unsigned rows ----------------------------------------------

    def renew_rows(self) -> int:
        """Sign waiting rows with the first key, so that older keys can be removed.

        The first worker that signs also adopts the unsigned jobs of an earlier release.
        Return how many it adopted.
        """
        if not hasattr(self.storage, "sql"):
            return 0
        since = self._signed_since() or datetime.now(UTC)
        self.put(SIGNED_SINCE, since)
        self._old_rows_until = since + OLD_ROWS
        return sum(self._renew(*table) for table in ROWS)

    def count_rows(self, key_id: str) -> int:
        """Return how many rows are signed with a key."""
        if not hasattr(self.storage, "sql"):
            return 0
        start = FORMAT + b":" + key_id.encode() + b":"
        prefix, mark = ("huey_", "%s") if self._is_postgresql() else ("", "?")
        counts = [
            self.storage.sql(
                f"select count(*) from {prefix}{table} where queue = {mark}"  # noqa: S608
                f" and substr({column}, 1, {len(start)}) = {mark}",
                (self.name, start),
                results=True,
            )
            for table, _, column in ROWS
        ]
        return sum(count for ((count,),) in counts)

    def _signed_since(self) -> datetime | None:
        try:
            since = self.get(SIGNED_SINCE, peek=True)
        except RowRefusedError:
            return None
        return since if isinstance(since, datetime) else None

    def _renew(self, table: str, key: str, column: str) -> int:
        """Sign a table's rows with the first key; return how many had no signature."""
        prefix, mark = ("huey_", "%s") if self._is_postgresql() else ("", "?")
        table, adopted, current = prefix + table, 0, self.serializer.start
        found = self.storage.sql(
            f"select {key}, {column} from {table} where queue = {mark}"  # noqa: S608
            f" and substr({column}, 1, {len(current)}) <> {mark}",
            (self.name, current),
            results=True,
        )
        for row, data in [(row, bytes(data)) for row, data in found]:
            if not data.startswith((old_rows.START, FORMAT)):
                continue  # It is from `jobs.state`, and not a job.
            try:
                renewed = self.serializer.serialize(self._read(data))
            except (RowRefusedError, ArgumentError):
                continue  # It is rejected, and recorded, when it is due.
            self.storage.sql(
                f"update {table} set {column} = {mark} where queue = {mark}"  # noqa: S608
                f" and {key} = {mark} and {column} = {mark}",
                (renewed, self.name, row, data),
                commit=True,
            )
            adopted += data.startswith(old_rows.START)
        return adopted

    def _is_postgresql(self) -> bool:
        return isinstance(self.storage, PostgresStorage)


def _without_module(name: str) -> str:
    base, _, job = name.rpartition(".")
    return f"bulwark.{job}" if base.startswith("bulwark") else name


def _connect(dsn: str) -> psycopg.Connection[Any]:
    connection = psycopg.connect(dsn)
    fit_to_server(connection)
    return connection
