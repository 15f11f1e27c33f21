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
from sqlalchemy.pool import ConnectionPoolEntry, StaticPool

from bulwark import urls
from bulwark.config import Config

# Named constraints can be changed by a later migration, on every database. Names hold
# all columns, as PostgreSQL requires unique names. Existing constraints keep theirs.
NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}

MERGE = (
    "To join migrations that two people began at the same one:"
    ' bin/flask db merge app@heads -m "join"'
)

# What a column holds, as `mapped_column(String(20), info=PERSONAL)`. No line of the log
# shows a value under the name of such a column; bulwark/lines.py sees to that.
SECRET = {"data": "secret"}
PERSONAL = {"data": "personal"}

# An exception that is logged must not show the values of its statement.
SILENT = {"hide_parameters": True}


# Of each connection to PostgreSQL, in libpq's words.
POSTGRESQL: dict[str, Any] = {
    # 2 s is the least that libpq knows; who asks is told to come back.
    "connect_timeout": 2,
    # A cluster made under LANG=C has no encoding, and psycopg would return bytes.
    "client_encoding": "UTF8",
    # A firewall that forgot an idle connection drops what is sent without a word: the
    # system would try again for a quarter of an hour while a visitor waits.
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
    """A moment in UTC, with its zone in Python on every database."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(
        self, value: datetime | None, dialect: Dialect
    ) -> datetime | None:
        """Refuse a moment without a zone, which could mean any."""
        if value is not None and value.tzinfo is None:
            raise ValueError("a moment needs a zone; use bulwark.database.utcnow()")
        return value and value.astimezone(UTC)

    def process_result_value(
        self, value: datetime | None, dialect: Dialect
    ) -> datetime | None:
        """Give SQLite's moments the zone that it does not keep."""
        return value and value.replace(tzinfo=value.tzinfo or UTC).astimezone(UTC)


def utcnow() -> datetime:
    """Return the present moment."""
    return datetime.now(UTC)


def init_app(app: Flask, config: Config) -> None:
    """Connect, and find the migrations of the base and of the app."""
    url = database_url(config)
    app.config["SQLALCHEMY_DATABASE_URI"] = url
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = _engine_options(url)
    db.init_app(app)
    base = Path(__file__).parent / "migrations"
    # Flask-Migrate writes the folder as it is, where a % would begin an interpolation;
    # so this is no more than a name, and what follows has the folder.
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


def _escaped(path: str | Path) -> str:
    return str(path).replace("%", "%%")


def database_url(config: Config) -> URL:
    """Return where the data is, with the driver and the password put in."""
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
            # What the URL says for itself counts.
            "connect_args": {k: v for k, v in POSTGRESQL.items() if k not in url.query},
        }
    if url.database in (None, "", ":memory:"):
        shared = {"check_same_thread": False}
        return SILENT | {"poolclass": StaticPool, "connect_args": shared}
    Path(str(url.database)).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return SILENT | {"connect_args": {"timeout": 5}}


def fit_to_server(connection: psycopg.Connection[Any]) -> None:
    """Fit a new connection to how the server is set, and to a pooler in front of it.

    psycopg reads moments in ISO style alone, and a database may have another. A pooler,
    such as PgBouncer, gives each transaction whichever server process is free, which
    lacks what was prepared in another one. So the process is not the one that it
    announced, and no statement is prepared.
    """
    told = "SELECT pg_backend_pid(), set_config('datestyle', 'ISO', false)"
    ((process, _),) = connection.execute(told).fetchall()
    connection.commit()
    if process != connection.info.backend_pid:
        connection.prepare_threshold = None


NO_FILE = ("file:", ":memory:")


def make_private(path: str | Path) -> None:
    """Make the file of a SQLite database, unless it is there, for its owner alone.

    SQLite's other files take its mode. What fails here fails where it is opened, too.
    """
    with suppress(OSError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))


@event.listens_for(Engine, "do_connect")
def _keep_private(dialect: Dialect, _: Any, words: list[Any], __: Any) -> None:
    # What begins with "file:" is a URI, of a team's own engine.
    if dialect.name == "sqlite" and words[0] and not str(words[0]).startswith(NO_FILE):
        make_private(words[0])


@event.listens_for(Engine, "connect")
def _fit_connection(connection: Any, record: ConnectionPoolEntry) -> None:
    """Make SQLite keep foreign keys, and let readers go on beside a writer."""
    if isinstance(connection, psycopg.Connection):
        fit_to_server(connection)
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA journal_mode = WAL")
        # WAL is safe with NORMAL: sqlite.org/pragma.html#pragma_synchronous
        connection.execute("PRAGMA synchronous = NORMAL")
