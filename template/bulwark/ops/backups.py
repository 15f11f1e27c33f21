"""Backups: `flask backup` and `flask restore`, with all data in one encrypted file.

A file begins with MAGIC and a line of JSON that describes its contents. The rest is a
tar of SQLite's files, or the output of pg_dump, in chunks encrypted with AES-256-GCM.
Each file has its own key: HKDF (RFC 5869) of one of APP_ENCRYPTION_KEYS, a salt and the
whole beginning. A nonce is the chunk's number and whether it is the last one: STREAM
(Hoang, Reyhanitabar, Rogaway, Vizar: Online Authenticated-Encryption, CRYPTO 2015), in
the form that age uses (C2SP, age.md). So changed, moved, dropped or swapped chunks are
detected.
"""

import fcntl
import json
import os
import re
import secrets
import shutil
import sqlite3
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen
from typing import IO, NamedTuple, cast

import click
import psycopg
from alembic.script import ScriptDirectory
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from flask import Flask
from flask.cli import with_appcontext
from psycopg.sql import SQL, Identifier

from bulwark import settings
from bulwark.audit import events
from bulwark.crypto import KEY_BYTES
from bulwark.database import migrate, utcnow
from bulwark.database.engine import database_url
from bulwark.jobs.state import remember_time

MAGIC = b"bulwark backup, version 1\n"
HEADER_LIMIT = 16 * 1024
CHUNK = 64 * 1024
TAG = 16

NOTHING_THERE = "There is no data yet. Run `flask prepare` first."
IN_USE = (
    "The database is in use. Stop the service, its worker and `flask metrics` first."
)
NOT_EMPTY = (
    "The database is not empty, and a restore replaces all of its data. To do that, add"
    " --replace. To save the current data, run `flask backup` first."
)


class BackupError(Exception):
    """A backup or restore failed. The message explains how to fix it."""


class Contents(NamedTuple):
    """The contents of a database."""

    revisions: list[str]
    tables: int
    rows: int

    def __str__(self) -> str:
        return f"{self.tables} tables, {self.rows} rows"


@dataclass(frozen=True)
class Header:
    """The line of JSON at the beginning of a backup."""

    service: str
    database: str
    made: str
    key_id: str
    key_mark: str
    salt: str
    contents: Contents


def init_app(app: Flask) -> None:
    """Add the commands."""
    app.cli.add_command(backup)
    app.cli.add_command(restore)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--keep", default=14, show_default=True, type=click.IntRange(min=1))
@with_appcontext
def backup(folder: Path, keep: int) -> None:
    """Write a backup of all data to FOLDER, then delete the oldest beyond --keep.

    The service can keep running.
    """
    slug, now = settings.current().slug, utcnow()
    new = folder / f"{slug}-{now:%Y%m%dT%H%M%SZ}.backup"
    with _explained("sys_backup_failed"):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _workshop(folder / f".{slug}.part") as place:
            part = place / "unfinished"
            _write(part, now.isoformat(timespec="seconds"))
            contents = _verify(part).contents
            part.rename(new)
            _sync(folder)
        ours = re.compile(rf"{re.escape(slug)}-\d{{8}}T\d{{6}}Z\.backup")
        older = {path for path in folder.iterdir() if ours.fullmatch(path.name)} - {new}
        for path in sorted(older)[: max(0, len(older) + 1 - keep)]:
            path.unlink()
        size = new.stat().st_size
    remember_time("backup")
    events.emit("sys_backup_created", file=new.name, bytes=size, rows=contents.rows)
    click.echo(
        f"Wrote {new}: {size:,} bytes, {contents}. Only this service's keys can decrypt"
        " it, and it does not contain them: keep a copy of env.production elsewhere."
    )


@click.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--replace", is_flag=True, help="Delete the current data.")
@with_appcontext
def restore(file: Path, replace: bool) -> None:
    """Restore the data of the backup FILE. Stop the service first."""
    with _explained("sys_restore_failed"):
        header = _verify(file)  # check the whole file before changing anything
        _refuse_newer(header.contents)
        with file.open("rb") as source:
            into = _into_sqlite if header.database == "sqlite" else _into_postgresql
            into(_open(source)[1], header.contents, replace=replace)
    events.emit("sys_backup_restored", file=file.name, made=header.made)
    click.echo(
        f"Restored {file}, made {header.made}: {header.contents}."
        " Run `flask prepare`, then start the service."
    )


@contextmanager
def _explained(failure: str) -> Iterator[None]:
    """Log a failure, and end the command with its message."""
    try:
        yield
    except (BackupError, OSError, sqlite3.Error, psycopg.Error) as error:
        events.emit(failure, reason=type(error).__name__)
        raise click.ClickException(str(error)) from None


@contextmanager
def _workshop(place: Path) -> Iterator[Path]:
    """Yield an empty private folder for one command at a time, then remove it.

    Files left behind by a killed command are deleted first.
    """
    place.mkdir(mode=0o700, exist_ok=True)
    with ExitStack() as stack:
        lock = os.open(place, os.O_RDONLY)
        stack.callback(os.close, lock)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BackupError(f"Another command is using {place}.") from None
        stack.callback(shutil.rmtree, place)
        for path in place.iterdir():
            path.unlink()
        yield place


def _create(path: Path) -> IO[bytes]:
    """Create a file that only its owner can read."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def _sync(path: Path) -> None:
    """Make sure that a file, or the names in a folder, survive a power failure."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _refuse_newer(contents: Contents) -> None:
    scripts = ScriptDirectory.from_config(migrate.get_config())
    known = {script.revision for script in scripts.walk_revisions()}
    if unknown := set(contents.revisions) - known:
        raise BackupError(
            "The backup was made by a newer release of this service: this one has no"
            f" migration {', '.join(sorted(unknown))}. Use that release to restore it."
        )


# --- The file ------------------------------------------------------------------------


def _write(path: Path, made: str) -> None:
    config = settings.current()
    kind = database_url(config).get_backend_name()
    key_id, key = next(iter(config.encryption_keys.items()))
    salt = secrets.token_bytes(KEY_BYTES)
    dump = _of_sqlite if kind == "sqlite" else _of_postgresql
    with dump() as (contents, payload), _create(path) as target:
        header = Header(
            config.slug, kind, made, key_id, _mark(key), salt.hex(), contents
        )
        start = MAGIC + json.dumps(asdict(header)).encode() + b"\n"
        cipher = _cipher(key, salt, start)
        target.write(start)
        for piece, nonce in _pieces(payload, CHUNK):
            target.write(cipher.encrypt(nonce, piece, None))
    _sync(path)


def _verify(path: Path) -> Header:
    """Decrypt every chunk of a backup, and return its header."""
    with path.open("rb") as source:
        header, chunks = _open(source)
        for _ in chunks:
            pass
    return header


def _open(source: IO[bytes]) -> tuple[Header, Iterator[bytes]]:
    """Return the header, which the first chunk authenticates, and the chunks."""
    config = settings.current()
    magic = source.readline(len(MAGIC))
    line = source.readline(HEADER_LIMIT)
    if magic != MAGIC:
        raise BackupError(f"{source.name} is not a backup that this release can read.")
    try:
        fields = json.loads(line)
        header = Header(**fields | {"contents": Contents(*fields["contents"])})
        salt = bytes.fromhex(header.salt)
    except (KeyError, TypeError, ValueError, RecursionError):
        raise _damaged(source) from None
    kind = database_url(config).get_backend_name()
    if (header.service, header.database) != (config.slug, kind):
        raise BackupError(
            f"{source.name} belongs to the service {header.service!r} on"
            f" {header.database!r}, but this is {config.slug!r} on {kind!r}."
        )
    for key in config.encryption_keys.values():
        if _mark(key) == header.key_mark:
            return header, _chunks(source, _cipher(key, salt, magic + line))
    raise BackupError(
        f"{source.name} was encrypted with a key that is not in APP_ENCRYPTION_KEYS."
        f" Its id is {header.key_id!r}. Add it there, after the others. The"
        " env.production from the day of the backup contains it."
    )


def _chunks(source: IO[bytes], cipher: AESGCM) -> Iterator[bytes]:
    for piece, nonce in _pieces(source, CHUNK + TAG):
        try:
            yield cipher.decrypt(nonce, piece, None)
        except InvalidTag:
            raise _damaged(source) from None


def _pieces(source: IO[bytes], size: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield the pieces of a stream, each with its nonce."""
    number, piece = 0, source.read(size)
    while True:
        following = source.read(size)
        yield piece, number.to_bytes(11, "big") + bytes([not following])
        if not following:
            return
        number, piece = number + 1, following


def _cipher(key: bytes, salt: bytes, start: bytes) -> AESGCM:
    return AESGCM(HKDF(SHA256(), KEY_BYTES, salt, start).derive(key))


def _mark(key: bytes) -> str:
    """Return a fingerprint that identifies a key, and reveals nothing else about it."""
    return HKDF(SHA256(), 8, None, b"bulwark backup, mark of a key").derive(key).hex()


def _damaged(source: IO[bytes]) -> BackupError:
    return BackupError(f"{source.name} is damaged or cut short. Use another backup.")


# --- SQLite --------------------------------------------------------------------------

BROKEN = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
PATIENCE = 30  # seconds to wait for a writer that locks out readers


def _sqlite_files() -> dict[str, Path]:
    """Return the files of the queue (bulwark.jobs) and the data, by name in the tar.

    The queue is copied first, so that the copy of the data contains what jobs refer to.
    """
    path = database_url(settings.current()).database
    if path in (None, "", ":memory:"):
        raise BackupError("The database is in memory: it has no file.")
    data = Path(str(path))
    return {"queue": data.with_suffix(".jobs.db"), "data": data}


@contextmanager
def _of_sqlite() -> Iterator[tuple[Contents, IO[bytes]]]:
    files = {name: path for name, path in _sqlite_files().items() if path.exists()}
    if "data" not in files:
        raise BackupError(NOTHING_THERE)
    with _workshop(files["data"].parent / ".backup") as place:
        for name, path in files.items():
            # A consistent snapshot without deleted data; writers are not blocked.
            with closing(sqlite3.connect(path, timeout=PATIENCE)) as connection:
                connection.execute("VACUUM INTO ?", [str(place / name)])
        contents = _check_sqlite(place)
        with tarfile.open(place / "tar", "w:gz", compresslevel=6) as tar:
            for name in files:
                tar.add(place / name, name)
        with (place / "tar").open("rb") as payload:
            yield contents, payload


def _into_sqlite(chunks: Iterator[bytes], contents: Contents, *, replace: bool) -> None:
    files = _sqlite_files()
    folder = files["data"].parent
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid != os.geteuid():
        raise BackupError(f"Run this as the owner of {folder}: runuser -u NAME -- ….")
    with ExitStack() as stack:
        empty = [stack.enter_context(_alone(path)) for path in files.values()]
        if not all(empty) and not replace:
            raise BackupError(NOT_EMPTY)
        place = stack.enter_context(_workshop(folder / ".restore"))
        with _create(place / "tar") as target:
            target.writelines(chunks)
        with tarfile.open(place / "tar") as tar:
            (place / "tar").unlink()
            for member in tar:
                if member.name not in files or not member.isfile():
                    raise BackupError(
                        f"The backup contains an unexpected {member.name!r}."
                    )
                with _create(place / member.name) as target:
                    shutil.copyfileobj(cast(IO[bytes], tar.extractfile(member)), target)
                _sync(place / member.name)
        _compare(_check_sqlite(place), contents)
        for name, path in files.items():
            for rest in ("-wal", "-shm", "-journal"):  # would change the new file
                path.with_name(path.name + rest).unlink(missing_ok=True)
            if (place / name).exists():
                (place / name).rename(path)
            else:
                path.unlink(missing_ok=True)
        _sync(folder)


@contextmanager
def _alone(path: Path) -> Iterator[bool]:
    """Lock a database exclusively; yield whether it is empty."""
    if not path.exists():
        yield True
        return
    with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as connection:
        try:
            # Fails while another process has it open: sqlite.org/wal.html, 3.
            connection.execute("PRAGMA journal_mode = DELETE")
            connection.execute("BEGIN EXCLUSIVE")
            empty = not _sqlite_tables(connection)
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
                raise BackupError(IN_USE) from None
            if error.sqlite_errorcode not in BROKEN:
                raise
            empty = False
        yield empty


def _check_sqlite(folder: Path) -> Contents:
    """Check all copies in a folder, and return the contents of the data's copy."""
    for path in folder.iterdir():
        with closing(sqlite3.connect(path)) as connection:
            (said,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
        if said != "ok":
            raise BackupError(f"The {path.name} is corrupt: {said}")
    with closing(sqlite3.connect(folder / "data")) as connection:
        tables = _sqlite_tables(connection)
        if "alembic_version" not in tables:
            raise BackupError(NOTHING_THERE)
        counts = [f'SELECT count(*) FROM "{table}"' for table in tables]  # noqa: S608
        rows = sum(connection.execute(count).fetchone()[0] for count in counts)
        found = connection.execute("SELECT version_num FROM alembic_version ORDER BY 1")
        return Contents([revision for (revision,) in found], len(tables), rows)


def _sqlite_tables(connection: sqlite3.Connection) -> list[str]:
    found = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
    return [name for (name,) in found]


def _compare(found: Contents, expected: Contents) -> None:
    if found != expected:
        raise BackupError(f"The backup lists {expected}, but it contains {found}.")


# --- PostgreSQL ----------------------------------------------------------------------

TABLES = """
    SELECT schemaname, tablename FROM pg_tables
    WHERE schemaname !~ '^(pg_|information_schema$)'
"""
SCHEMAS = """
    SELECT nspname FROM pg_namespace WHERE nspname !~ '^(pg_|information_schema$)'
"""
OTHERS = """
    SELECT 1 FROM pg_stat_activity
    WHERE datname = current_database() AND usename = current_user
    AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""
PSQL = ("psql", "-Xq", "--set=ON_ERROR_STOP=1", "--set=VERBOSITY=terse")
PG_RESTORE = ("pg_restore", "-1", "--no-owner", "--no-privileges", "--file=-")
# pg_restore 17 writes this for every server, and older servers reject it.
SED = ("sed", "1,40{/^SET transaction_timeout = 0;$/d}")


@contextmanager
def _of_postgresql() -> Iterator[tuple[Contents, IO[bytes]]]:
    _require("pg_dump")
    with _connect() as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        for limit in ("statement_timeout", "idle_in_transaction_session_timeout"):
            connection.execute(SQL("SET {} = 0").format(Identifier(limit)))
        # Count the rows of the same snapshot that pg_dump reads.
        ((snapshot,),) = connection.execute("SELECT pg_export_snapshot()").fetchall()
        contents = _check_postgresql(connection)
        server = connection.info.server_version // 10_000
        environment = _environment(connection)
        command = ("pg_dump", "--format=custom", f"--snapshot={snapshot}")
        with Popen(command, env=environment, stdout=PIPE) as dump:  # noqa: S603
            yield contents, cast(IO[bytes], dump.stdout)
    if dump.returncode:
        raise BackupError(
            "pg_dump failed: see above. It must not be older than the server:"
            f" version {server}."
        )


def _into_postgresql(
    chunks: Iterator[bytes], contents: Contents, *, replace: bool
) -> None:
    """Replace all data in one transaction, which pg_restore commits on success."""
    _require("psql", "pg_restore")
    begin = ["BEGIN", "SET client_min_messages = error", "SET lock_timeout = '10s'"]
    with _connect() as connection:
        if connection.execute(OTHERS).fetchall():
            raise BackupError(IN_USE)
        if connection.execute(TABLES).fetchall():
            if not replace:
                raise BackupError(NOT_EMPTY)
            for (schema,) in connection.execute(SCHEMAS):
                begin += [f"DROP SCHEMA {Identifier(schema).as_string()} CASCADE"]
            begin += ["CREATE SCHEMA public"]
        environment = _environment(connection)
    with (
        Popen(PSQL, env=environment, stdin=PIPE, stdout=DEVNULL) as sql,  # noqa: S603
        Popen(PG_RESTORE, stdin=PIPE, stdout=PIPE) as unpack,  # noqa: S603
    ):
        into_sql = cast(IO[bytes], sql.stdin)
        into_sql.write(";\n".join([*begin, ""]).encode())
        into_sql.flush()
        with Popen(SED, stdin=unpack.stdout, stdout=into_sql) as fit:  # noqa: S603
            cast(IO[bytes], unpack.stdout).close()
            with suppress(BrokenPipeError), cast(IO[bytes], unpack.stdin) as feed:
                feed.writelines(chunks)
    if sql.returncode or unpack.returncode or fit.returncode:
        raise BackupError("The restore failed: see above. The data is unchanged.")
    with _connect() as connection:
        _compare(_check_postgresql(connection), contents)


def _connect() -> psycopg.Connection:
    url = database_url(settings.current())
    words, options = url.get_dialect()().create_connect_args(url)
    return psycopg.connect(*words, **options)


def _check_postgresql(connection: psycopg.Connection) -> Contents:
    """Return the contents of the database."""
    tables = connection.execute(TABLES).fetchall()
    if ("public", "alembic_version") not in tables:
        raise BackupError(NOTHING_THERE)
    rows = 0
    for names in tables:
        count = SQL("SELECT count(*) FROM {}").format(Identifier(*names))
        rows += connection.execute(count).fetchall()[0][0]
    found = connection.execute("SELECT version_num FROM alembic_version ORDER BY 1")
    return Contents([revision for (revision,) in found], len(tables), rows)


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
