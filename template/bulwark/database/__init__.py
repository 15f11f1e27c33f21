"""The database: SQLite or PostgreSQL, one metadata for all models."""

import os
import sqlite3
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from flask import Flask
from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import DateTime, Dialect, MetaData, TypeDecorator, event
from sqlalchemy.engine import URL, Engine, make_url
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.pool import ConnectionPoolEntry, Pool, StaticPool

from bulwark.settings import Config, urls

# Later migrations can change named constraints on every database. Names contain all
# columns, because PostgreSQL requires unique names. Existing constraints keep theirs.
NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}

MERGE = (
    "To merge migrations that were both based on the same one:"
    ' bin/flask db merge app@heads -m "join"'
)

# The kind of data in a column, as in `mapped_column(String(20), info=PERSONAL)`.
# The log redacts fields with the name of such a column (bulwark/observability/).
SECRET = {"data": "secret"}
PERSONAL = {"data": "personal"}

# A logged exception must not contain the values of its statement.
SILENT = {"hide_parameters": True}


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


class _Base(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMING)


db = SQLAlchemy(model_class=_Base, disable_autonaming=True)
migrate = Migrate()

if TYPE_CHECKING:
    Model = _Base
else:
    Model = db.Model


class UTCDateTime(TypeDecorator[datetime]):
    """A time in UTC, which is timezone-aware in Python on every database."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(
        self, value: datetime | None, dialect: Dialect
    ) -> datetime | None:
        """Reject a time without a time zone, which is ambiguous."""
        if value is not None and value.tzinfo is None:
            raise ValueError("a time needs a time zone; use bulwark.database.utcnow()")
        return value and value.astimezone(UTC)

    def process_result_value(
        self, value: datetime | None, dialect: Dialect
    ) -> datetime | None:
        """Add the time zone, which SQLite does not store."""
        return value and value.replace(tzinfo=value.tzinfo or UTC).astimezone(UTC)


def utcnow() -> datetime:
    """Return the current time in UTC."""
    return datetime.now(UTC)


def init_app(app: Flask, config: Config) -> None:
    """Configure the database, and the migrations of the base and of the app."""
    url = database_url(config)
    app.config["SQLALCHEMY_DATABASE_URI"] = url
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = _engine_options(url)
    db.init_app(app)
    base = Path(__file__).parents[1] / "migrations"
    # Flask-Migrate does not escape the folder, in which a % would begin an
    # interpolation. So this is only a name, and the function below sets the folder.
    migrate.init_app(app, db, directory="migrations")
    folders = {
        "bulwark": str(base / "versions"),
        "app": str(Path(app.root_path) / "migrations"),
    }

    @migrate.configure  # type: ignore[untyped-decorator]
    def _two_branches(alembic: Any) -> Any:
        alembic.config_file_name = str(base / "alembic.ini")
        alembic.file_config.read(alembic.config_file_name)
        alembic.file_config.defaults()["here"] = _escaped(base)
        alembic.set_main_option("script_location", _escaped(base))
        alembic.set_main_option("path_separator", "newline")
        locations = "\n".join(map(_escaped, folders.values()))
        alembic.set_main_option("version_locations", locations)
        alembic.attributes["folders"] = folders
        return alembic


def pool_of(app: Flask) -> Pool:
    """Return the pool of the app's connections."""
    with app.app_context():
        return db.engine.pool


def _escaped(path: str | Path) -> str:
    return str(path).replace("%", "%%")


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


def _engine_options(url: URL) -> dict[str, Any]:
    if url.get_backend_name() == "postgresql":
        return SILENT | {
            "pool_pre_ping": True,
            "pool_recycle": 1800,
            # Options in the URL take precedence.
            "connect_args": {k: v for k, v in POSTGRESQL.items() if k not in url.query},
        }
    if url.database in (None, "", ":memory:"):
        shared = {"check_same_thread": False}
        return SILENT | {"poolclass": StaticPool, "connect_args": shared}
    Path(str(url.database)).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return SILENT | {"connect_args": {"timeout": 5}}


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


NO_FILE = ("file:", ":memory:")


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
