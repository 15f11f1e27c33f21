"""`flask backup` and `flask restore`."""

import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, Protocol

import click
import psycopg
from alembic.script import ScriptDirectory
from flask import Flask
from flask.cli import with_appcontext

from bulwark import settings
from bulwark.audit import events
from bulwark.database import utcnow
from bulwark.database.engine import database_url
from bulwark.database.migrations import migrate
from bulwark.ops.backups import (
    archive,
    drill_results,
    filesystem,
    payload,
    postgresql,
    retention,
    sqlite,
)
from bulwark.ops.backups.contents import BackupError, Contents


class Database(Protocol):
    """A module that reads and replaces all data of a kind of database."""

    def dump(self) -> AbstractContextManager[tuple[Contents, IO[bytes]]]:
        """Yield what the database contains, and its data as a stream."""

    def restore(
        self, chunks: Iterator[bytes], contents: Contents, *, replace: bool
    ) -> None:
        """Replace the data by that of a stream, if it has these contents."""


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
    with _log_failures_as("sys_backup_failed"):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with filesystem.private_folder(folder / f".{slug}.part") as scratch:
            part = scratch / "unfinished"
            _write(part, now.isoformat(timespec="seconds"))
            header = archive.verify(part)
            part.rename(new)
            filesystem.sync(folder)
        retention.delete_oldest(new, slug, keep)
        size = new.stat().st_size
    drill_results.remember_backup()
    rows = header.contents.rows
    events.emit("sys_backup_created", file=new.name, bytes=size, rows=rows)
    click.echo(
        f"Wrote {new}: {size:,} bytes, {header.contents}, {header.files}. Only"
        " this service's keys can decrypt it, and it does not contain them: keep a copy"
        " of env.production elsewhere."
    )


@click.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--replace", is_flag=True, help="Delete the current data.")
@with_appcontext
def restore(file: Path, replace: bool) -> None:
    """Restore the data of the backup FILE. Stop the service first."""
    with _log_failures_as("sys_restore_failed"):
        header = archive.verify(file)  # check the whole file before changing anything
        _refuse_newer(header.contents)
        with file.open("rb") as source:
            _, chunks = archive.read(source)
            if header.files is not None:
                chunks = payload.database_of(chunks)
            _database().restore(chunks, header.contents, replace=replace)
    events.emit("sys_backup_restored", file=file.name, made=header.made)
    click.echo(
        f"Restored {file}, made {header.made}: {header.contents}."
        " Run `flask prepare`, then start the service."
    )


def _write(path: Path, made: str) -> None:
    with payload.locked_files(), _database().dump() as (contents, database):
        files, listed = payload.listed()  # after the snapshot, which may refer to them
        archive.write(path, made, contents, files, payload.joined(listed, database))


def _database() -> Database:
    """Return the module for this service's kind of database."""
    kind = database_url(settings.current()).get_backend_name()
    return sqlite if kind == "sqlite" else postgresql


def _refuse_newer(contents: Contents) -> None:
    scripts = ScriptDirectory.from_config(migrate.get_config())
    own = {script.revision for script in scripts.walk_revisions()}
    if unknown := set(contents.revisions) - own:
        raise BackupError(
            "The backup was made by a newer release of this service: this one has no"
            f" migration {', '.join(sorted(unknown))}. Use that release to restore it."
        )


@contextmanager
def _log_failures_as(event: str) -> Iterator[None]:
    """Log a failure, and end the command with its message."""
    try:
        yield
    except (BackupError, OSError, sqlite3.Error, psycopg.Error) as error:
        events.emit(event, reason=type(error).__name__)
        raise click.ClickException(str(error)) from None
