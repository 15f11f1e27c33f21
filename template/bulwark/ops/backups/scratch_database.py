"""The database on the same PostgreSQL server into which a drill restores a backup.

It is named after the live one. A role that may create databases gets a new one for
each drill. Any other role needs one that an administrator creates once; the drill
empties it. A comment on the database marks the data of a drill, so nothing else is ever
deleted.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import errors
from psycopg.sql import SQL, Identifier, Literal
from sqlalchemy.engine import URL

from bulwark import settings
from bulwark.database.engine import database_url
from bulwark.ops.backups import postgresql
from bulwark.ops.backups.contents import BackupError

NAME_BYTES = 63  # PostgreSQL cuts longer names
CREATED = "Created by a restore drill, which drops it."
FILLED = "Filled by a restore drill, which empties it."
COMMENT = """
    SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = %s
"""
OBJECTS = """
    SELECT 1 FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE nspname !~ '^(pg_|information_schema$)' LIMIT 1
"""
# The children of a killed drill may still be connected.
DISCONNECT = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND usename = current_user
    AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""


@contextmanager
def scratch_database() -> Iterator[URL]:
    """Yield the URL of an empty database, and delete its data afterwards."""
    live_url = database_url(settings.current())
    with postgresql.connect() as live:
        live.autocommit = True
        ((current, role),) = live.execute("SELECT current_database(), current_user")
        name = f"{current}_drill"
        if len(name.encode()) > NAME_BYTES:
            raise BackupError(f"A drill needs a database {name!r}: that is too long.")
        created = _create(live, name, role)
    url = live_url.set(database=name)
    if not created:
        _fill(url, name, role)
    try:
        _connect(url, name).close()
        yield url
    finally:
        if created:
            _drop(name)
        else:
            _empty(url, name)


def _create(live: psycopg.Connection, name: str, role: str) -> bool:
    """Create the database, unless it exists already; return whether it was created."""
    comments = live.execute(COMMENT, [name]).fetchall()
    if comments == [(CREATED,)]:  # by a drill that was killed
        live.execute(_drop_statement(name))
    elif comments:
        return False
    statement = """
        CREATE DATABASE {} TEMPLATE template0 ENCODING 'UTF8'
        LC_COLLATE {} LC_CTYPE {}
    """
    query = """
        SELECT datcollate, datctype FROM pg_database
        WHERE datname = current_database()
    """
    ((collate, ctype),) = live.execute(query)
    names = (Identifier(name), Literal(collate), Literal(ctype))
    try:
        live.execute(SQL(statement).format(*names))
    except errors.InsufficientPrivilege:
        raise BackupError(
            f"A drill needs a database {name!r}, and the role {role!r} may not create"
            f" it. Create it once, as the user postgres: createdb -O {role} {name}"
        ) from None
    _comment(live, name, CREATED)
    revoke = SQL("REVOKE CONNECT, TEMPORARY ON DATABASE {} FROM PUBLIC")
    live.execute(revoke.format(Identifier(name)))
    return True


def _fill(url: URL, name: str, role: str) -> None:
    """Mark the data of an existing database as a drill's, if it has no other."""
    with _connect(url, name) as connection:
        ((comment,),) = connection.execute(COMMENT, [name])
        if comment == FILLED:  # by a drill that was killed
            _delete_all(connection)
        if connection.execute(OBJECTS).fetchall():
            raise BackupError(
                f"The database {name!r} contains data that is not from a drill, which"
                " would delete it. Move the data to a database of another name."
            )
        try:
            _comment(connection, name, FILLED)
        except errors.InsufficientPrivilege:
            raise BackupError(
                f"The database {name!r} belongs to another role than {role!r}. Change"
                " that, as the user postgres: psql -c"
                f' \'ALTER DATABASE "{name}" OWNER TO "{role}"\''
            ) from None


def _empty(url: URL, name: str) -> None:
    with _connect(url, name) as connection:
        _delete_all(connection)
        _comment(connection, name, None)


def _delete_all(connection: psycopg.Connection) -> None:
    connection.execute(DISCONNECT)
    with connection.transaction():
        for statement in postgresql.emptying(connection):
            connection.execute(statement.encode())


def _drop(name: str) -> None:
    with postgresql.connect() as live:
        live.autocommit = True
        live.execute(_drop_statement(name))


def _drop_statement(name: str) -> psycopg.sql.Composed:
    return SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(name))


def _connect(url: URL, name: str) -> psycopg.Connection:
    """Connect to the database, and to no other: an option or a pooler may choose."""
    connection = postgresql.connect(url)
    connection.autocommit = True
    ((actual,),) = connection.execute("SELECT current_database()")
    if actual != name:
        connection.close()
        raise BackupError(
            f"APP_DATABASE_URL leads to {actual!r} although it names {name!r}: remove"
            " the option `dbname`, or let the pooler pass the name."
        )
    return connection


def _comment(connection: psycopg.Connection, name: str, text: str | None) -> None:
    statement = SQL("COMMENT ON DATABASE {} IS {}")
    connection.execute(statement.format(Identifier(name), Literal(text)))
