"""Connections to SQLite and PostgreSQL: their URL, options and settings."""

import os
import select
import sqlite3
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import Dialect, event
from sqlalchemy.engine import URL, Engine, make_url
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.pool import ConnectionPoolEntry, StaticPool

from bulwark.settings import Config, urls

# libpq's options for each connection to PostgreSQL.
POSTGRESQL: dict[str, Any] = {
    # 2 s is libpq's minimum; then the client gets a response that asks it to retry.
    "connect_timeout": 2,
    # A cluster created with LANG=C has no encoding, and psycopg would return bytes.
    "client_encoding": "UTF8",
    # A firewall that forgot an idle connection silently drops packets: the system would
    # retransmit for a quarter of an hour while the client waits.
    "keepalives_idle": 60,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
NO_FILE = ("file:", ":memory:")
# Seconds after which an idle connection is tested: its other end may have vanished.
IDLE = 30


def database_url(config: Config) -> URL:
    """Return the database's URL, including the driver and the password."""
    start, mark, options = config.database_url.partition("?")
    if start.startswith("sqlite:"):
        # Only some versions of SQLAlchemy decode a path.
        path = urls.path_of(start)[len("///") :]
        return make_url(f"sqlite://{mark}{options}").set(database=path or None)
    url = make_url(config.database_url)
    if config.database_password and url.password is None:
        url = url.set(password=config.database_password)
    return url.set(drivername="postgresql+psycopg")


def engine_options(url: URL) -> dict[str, Any]:
    """Return the options of SQLAlchemy's engine."""
    if url.get_backend_name() == "postgresql":
        return {
            "pool_recycle": 1800,
            # Options in the URL take precedence.
            "connect_args": {k: v for k, v in POSTGRESQL.items() if k not in url.query},
        }
    if url.database in (None, "", ":memory:"):
        shared = {"check_same_thread": False}
        return {"poolclass": StaticPool, "connect_args": shared}
    Path(str(url.database)).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return {"connect_args": {"timeout": 5}}


def fit_to_server(connection: psycopg.Connection[Any]) -> None:
    """Adapt a new connection to the server's settings, and to a pooler in front of it.

    psycopg parses times in ISO style only, and a database may have another default. A
    pooler such as PgBouncer runs each transaction in any free server process, which
    lacks the statements prepared in another one. If the process differs from the one
    announced at the start, prepared statements are disabled.
    """
    query = "SELECT pg_backend_pid(), set_config('datestyle', 'ISO', false)"
    ((process, _),) = connection.execute(query).fetchall()
    connection.commit()
    if process != connection.info.backend_pid:
        connection.prepare_threshold = None


def make_private(path: str | Path) -> None:
    """Create the file of a SQLite database, readable only by its owner, if missing.

    SQLite's other files inherit its mode. Errors here also occur when it is opened.
    """
    with suppress(OSError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))


@event.listens_for(Engine, "do_connect")
def _keep_private(dialect: Dialect, _: Any, words: list[Any], __: Any) -> None:
    # A name that begins with "file:" is a URI, of an engine that the app created.
    if dialect.name == "sqlite" and words[0] and not str(words[0]).startswith(NO_FILE):
        make_private(words[0])


@event.listens_for(Engine, "connect")
def _fit_connection(connection: Any, record: ConnectionPoolEntry) -> None:
    """Make SQLite enforce foreign keys, and allow reads during a write."""
    if isinstance(connection, psycopg.Connection):
        fit_to_server(connection)
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA journal_mode = WAL")
        # WAL is safe with NORMAL: sqlite.org/pragma.html#pragma_synchronous
        connection.execute("PRAGMA synchronous = NORMAL")


@event.listens_for(Engine, "checkin")
def _remember_use(_: Any, record: ConnectionPoolEntry) -> None:
    record.info["used_at"] = time.monotonic()


@event.listens_for(Engine, "checkout")
def _replace_if_lost(connection: Any, record: ConnectionPoolEntry, _: object) -> None:
    """Replace a connection to PostgreSQL that has ended, without a round trip.

    The socket of a connection that the server closed is readable. SQLAlchemy's
    `pool_pre_ping` sends a statement before each use.
    """
    if not isinstance(connection, psycopg.Connection):
        return
    idle = time.monotonic() - record.info.get("used_at", time.monotonic())
    try:
        if idle > IDLE or _has_unread_input(connection):
            connection.execute("")
            connection.rollback()
    except psycopg.Error as error:
        raise InvalidatePoolError from error


def _has_unread_input(connection: psycopg.Connection[Any]) -> bool:
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))
