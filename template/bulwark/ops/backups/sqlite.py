"""Backups of SQLite: a tar of the files of the data and of the queue."""

import os
import shutil
import sqlite3
import tarfile
from collections.abc import Container, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import IO, cast

from bulwark import settings
from bulwark.database.engine import database_url
from bulwark.ops.backups import filesystem
from bulwark.ops.backups.contents import (
    IN_USE,
    NO_DATA,
    NOT_EMPTY,
    BackupError,
    Contents,
    refuse_difference,
)

CORRUPT = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
LOCK_TIMEOUT = 30  # seconds to wait for a writer that locks out readers


@contextmanager
def dump() -> Iterator[tuple[Contents, IO[bytes]]]:
    """Yield the contents and a compressed tar of copies of all files."""
    files = {name: path for name, path in _files().items() if path.exists()}
    if "data" not in files:
        raise BackupError(NO_DATA)
    with filesystem.private_folder(files["data"].parent / ".backup") as folder:
        for name, path in files.items():
            # A consistent snapshot without deleted data; writers are not blocked.
            with closing(sqlite3.connect(path, timeout=LOCK_TIMEOUT)) as connection:
                connection.execute("VACUUM INTO ?", [str(folder / name)])
        contents = _check(folder)
        with tarfile.open(folder / "tar", "w:gz", compresslevel=6) as tar:
            for name in files:
                tar.add(folder / name, name)
        with (folder / "tar").open("rb") as payload:
            yield contents, payload


def restore(chunks: Iterator[bytes], contents: Contents, *, replace: bool) -> None:
    """Check the unpacked files, then put them in the place of the current ones."""
    files = _files()
    folder = files["data"].parent
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid != os.geteuid():
        raise BackupError(f"Run this as the owner of {folder}: runuser -u NAME -- ….")
    with ExitStack() as stack:
        empty = [stack.enter_context(_locked(path)) for path in files.values()]
        if not all(empty) and not replace:
            raise BackupError(NOT_EMPTY)
        unpacked = stack.enter_context(filesystem.private_folder(folder / ".restore"))
        _unpack(chunks, unpacked, files)
        refuse_difference(_check(unpacked), contents)
        _move(unpacked, files)
        filesystem.sync(folder)


def size() -> int:
    """Return the size of the current files in bytes."""
    return sum(path.stat().st_size for path in _files().values() if path.exists())


def _files() -> dict[str, Path]:
    """Return the files of the queue (bulwark.jobs) and the data, by name in the tar.

    The queue is copied first, so that the copy of the data contains what jobs refer to.
    """
    path = database_url(settings.current()).database
    if path in (None, "", ":memory:"):
        raise BackupError("The database is in memory: it has no file.")
    data = Path(str(path))
    return {"queue": data.with_suffix(".jobs.db"), "data": data}


@contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """Lock a database exclusively; yield whether it is empty."""
    if not path.exists():
        yield True
        return
    with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as connection:
        try:
            # Fails while another process has it open: sqlite.org/wal.html, 3.
            connection.execute("PRAGMA journal_mode = DELETE")
            connection.execute("BEGIN EXCLUSIVE")
            empty = not _tables(connection)
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
                raise BackupError(IN_USE) from None
            if error.sqlite_errorcode not in CORRUPT:
                raise
            empty = False
        yield empty


def _unpack(chunks: Iterator[bytes], folder: Path, names: Container[str]) -> None:
    """Write the files of a backup into a folder, where nothing else is."""
    with filesystem.create_private(folder / "tar") as target:
        target.writelines(chunks)
    with tarfile.open(folder / "tar") as tar:
        (folder / "tar").unlink()
        for member in tar:
            if member.name not in names or not member.isfile():
                raise BackupError(f"The backup contains an unexpected {member.name!r}.")
            with filesystem.create_private(folder / member.name) as target:
                shutil.copyfileobj(cast(IO[bytes], tar.extractfile(member)), target)
            filesystem.sync(folder / member.name)


def _move(folder: Path, files: Mapping[str, Path]) -> None:
    """Replace the current files by those in a folder."""
    for name, path in files.items():
        for suffix in ("-wal", "-shm", "-journal"):  # would change the new file
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        if (folder / name).exists():
            (folder / name).rename(path)
        else:
            path.unlink(missing_ok=True)


def _check(folder: Path) -> Contents:
    """Check all copies in a folder, and return the contents of the data's copy."""
    for path in folder.iterdir():
        with closing(sqlite3.connect(path)) as connection:
            (result,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
        if result != "ok":
            raise BackupError(f"The {path.name} is corrupt: {result}")
    with closing(sqlite3.connect(folder / "data")) as connection:
        return _contents(connection)


def _contents(connection: sqlite3.Connection) -> Contents:
    tables = _tables(connection)
    if "alembic_version" not in tables:
        raise BackupError(NO_DATA)
    counts = [f'SELECT count(*) FROM "{table}"' for table in tables]  # noqa: S608
    rows = sum(connection.execute(count).fetchone()[0] for count in counts)
    versions = connection.execute("SELECT version_num FROM alembic_version ORDER BY 1")
    return Contents([revision for (revision,) in versions], len(tables), rows)


def _tables(connection: sqlite3.Connection) -> list[str]:
    names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
    return [name for (name,) in names]
