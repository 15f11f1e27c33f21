"""Backups of PostgreSQL, with its own programs."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from subprocess import DEVNULL, PIPE, Popen
from typing import IO, cast

import psycopg
from psycopg.sql import SQL, Identifier
from sqlalchemy.engine import URL

from bulwark import settings
from bulwark.database.engine import database_url
from bulwark.ops.backups.contents import (
    IN_USE,
    NO_DATA,
    NOT_EMPTY,
    BackupError,
    Contents,
    refuse_difference,
)

TABLES = """
    SELECT schemaname, tablename FROM pg_tables
    WHERE schemaname !~ '^(pg_|information_schema$)'
"""
SCHEMAS = """
    SELECT nspname FROM pg_namespace WHERE nspname !~ '^(pg_|information_schema$)'
"""
OTHER_CLIENTS = """
    SELECT 1 FROM pg_stat_activity
    WHERE datname = current_database() AND usename = current_user
    AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""
PSQL = ("psql", "-Xq", "--set=ON_ERROR_STOP=1", "--set=VERBOSITY=terse")
PG_RESTORE = ("pg_restore", "-1", "--no-owner", "--no-privileges", "--file=-")
# pg_restore 17 writes this for every server, and older servers reject it.
SED = ("sed", "1,40{/^SET transaction_timeout = 0;$/d}")


@contextmanager
def dump() -> Iterator[tuple[Contents, IO[bytes]]]:
    """Yield the contents and the output of pg_dump, of the same snapshot."""
    _require("pg_dump")
    with connect() as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        for limit in ("statement_timeout", "idle_in_transaction_session_timeout"):
            connection.execute(SQL("SET {} = 0").format(Identifier(limit)))
        # Count the rows of the same snapshot that pg_dump reads.
        ((snapshot,),) = connection.execute("SELECT pg_export_snapshot()").fetchall()
        contents = _contents(connection)
        server = connection.info.server_version // 10_000
        environment = _environment(connection)
        command = ("pg_dump", "--format=custom", f"--snapshot={snapshot}")
        with Popen(command, env=environment, stdout=PIPE) as process:  # noqa: S603
            yield contents, cast(IO[bytes], process.stdout)
    if process.returncode:
        raise BackupError(
            "pg_dump failed: see above. It must not be older than the server:"
            f" version {server}."
        )


def restore(chunks: Iterator[bytes], contents: Contents, *, replace: bool) -> None:
    """Replace all data in one transaction, which pg_restore commits on success."""
    _require("psql", "pg_restore")
    with connect() as connection:
        if connection.execute(OTHER_CLIENTS).fetchall():
            raise BackupError(IN_USE)
        statements = _preparation(connection, replace=replace)
        environment = _environment(connection)
    _run_restore(statements, chunks, environment)
    with connect() as connection:
        refuse_difference(_contents(connection), contents)


def _preparation(connection: psycopg.Connection, *, replace: bool) -> list[str]:
    """Return the statements that begin the transaction of a restore."""
    begin = ["BEGIN", "SET client_min_messages = error", "SET lock_timeout = '10s'"]
    if not connection.execute(TABLES).fetchall():
        return begin
    if not replace:
        raise BackupError(NOT_EMPTY)
    return [*begin, *emptying(connection)]


def emptying(connection: psycopg.Connection) -> list[str]:
    """Return the statements that delete all data of a database."""
    schemas = connection.execute(SCHEMAS).fetchall()
    drop = [
        f"DROP SCHEMA {Identifier(name).as_string()} CASCADE" for (name,) in schemas
    ]
    return [*drop, "CREATE SCHEMA public"]


def _run_restore(
    statements: list[str], chunks: Iterator[bytes], environment: dict[str, str]
) -> None:
    """Pipe the chunks through pg_restore and sed into psql."""
    with (
        Popen(PSQL, env=environment, stdin=PIPE, stdout=DEVNULL) as psql,  # noqa: S603
        Popen(PG_RESTORE, stdin=PIPE, stdout=PIPE) as pg_restore,  # noqa: S603
    ):
        psql_input = cast(IO[bytes], psql.stdin)
        psql_input.write(";\n".join([*statements, ""]).encode())
        psql_input.flush()
        with Popen(SED, stdin=pg_restore.stdout, stdout=psql_input) as sed:  # noqa: S603
            cast(IO[bytes], pg_restore.stdout).close()
            with suppress(BrokenPipeError), cast(IO[bytes], pg_restore.stdin) as feed:
                feed.writelines(chunks)
    if psql.returncode or pg_restore.returncode or sed.returncode:
        raise BackupError("The restore failed: see above. The data is unchanged.")


def connect(url: URL | None = None) -> psycopg.Connection:
    """Connect to the service's database, or to another one."""
    url = url or database_url(settings.current())
    arguments, options = url.get_dialect()().create_connect_args(url)
    return psycopg.connect(*arguments, **options)


def _contents(connection: psycopg.Connection) -> Contents:
    tables = connection.execute(TABLES).fetchall()
    if ("public", "alembic_version") not in tables:
        raise BackupError(NO_DATA)
    rows = 0
    for names in tables:
        count = SQL("SELECT count(*) FROM {}").format(Identifier(*names))
        rows += connection.execute(count).fetchall()[0][0]
    versions = connection.execute("SELECT version_num FROM alembic_version ORDER BY 1")
    return Contents([revision for (revision,) in versions], len(tables), rows)


def _environment(connection: psycopg.Connection) -> dict[str, str]:
    """Return the environment in which PostgreSQL's programs use the same database.

    Every user of the machine can read a command line, but not an environment.
    """
    return os.environ | {
        option.envvar.decode(): option.val.decode()
        for option in connection.pgconn.info
        if option.envvar and option.val is not None
    }


def _require(*programs: str) -> None:
    for program in programs:
        if not shutil.which(program):
            raise BackupError(
                f"{program} is not installed. On Debian, install postgresql-client."
            )
