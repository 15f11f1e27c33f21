"""`flask restore-drill`: restore the newest backup into a scratch place.

Each step is a command that an operator would run, in a process of its own whose
settings lead to the scratch place. So a drill tests these commands, and they can't
reach the live data.
"""

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import click
import psycopg
from flask import Flask, current_app
from flask.cli import with_appcontext

from bulwark import settings
from bulwark.audit import anchors, events
from bulwark.database.engine import database_url
from bulwark.ops.backups import (
    archive,
    drill_results,
    filesystem,
    retention,
    sqlite,
)
from bulwark.ops.backups.archive import Header
from bulwark.ops.backups.contents import BackupError, Files
from bulwark.ops.backups.scratch_database import scratch_database
from bulwark.settings import urls
from bulwark.uploads.storage import LocalFolder

STEPS = (("db", "upgrade", "heads"), ("audit", "verify"))
MEGABYTE = 1_000_000


def init_app(app: Flask) -> None:
    """Add the command."""
    app.cli.add_command(restore_drill)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@with_appcontext
def restore_drill(folder: Path) -> None:
    """Restore the newest backup in FOLDER into a scratch place, and check it.

    The service keeps running, and its data is not touched.
    """
    slug = settings.current().slug
    if _is_before_the_first_backup(folder, slug):
        click.echo(f"There is no backup in {folder} yet, so there is nothing to test.")
        return
    start = time.monotonic()
    with _failures_recorded(start):
        file = retention.newest(folder, slug)
        header = archive.verify(file)
        _drill(file.resolve(), header)
    seconds = round(time.monotonic() - start, 1)
    drill_results.remember_drill(failed=False, seconds=seconds)
    rows = header.contents.rows
    events.emit("sys_restore_drill_passed", file=file.name, rows=rows, seconds=seconds)
    files = f", {header.files}" if header.files else ""
    click.echo(
        f"Restored {file}, made {header.made}, into a scratch place in {seconds} s:"
        f" {header.contents}{files}. All migrations were applied, the audit trail is"
        " intact, and the copy was deleted."
    )


def _is_before_the_first_backup(folder: Path, slug: str) -> bool:
    return drill_results.read().first_backup is None and not (
        folder.is_dir() and retention.all_of(folder, slug)
    )


def _drill(file: Path, header: Header) -> None:
    """Restore a backup into a scratch place, and delete that."""
    with filesystem.private_folder(_place()) as scratch:
        _refuse_full_disk(scratch, file, header)
        lines = anchors.lines_before(datetime.fromisoformat(header.made))
        (scratch / "audit-anchors").write_text("".join(lines))
        with _scratch_url(scratch) as url:
            environment = _environment(scratch, url)
            _run(environment, "restore", str(file))
            for step in STEPS:
                _run(environment, *step)
        _refuse_missing_files(scratch / "uploads", header.files)


def _place() -> Path:
    """Return the folder for the copy: beside the live data, where others can't read.

    It is not beside the backups, as these are encrypted, and copied elsewhere.
    """
    config = settings.current()
    if _is_sqlite():
        return Path(str(database_url(config).database)).resolve().parent / ".drill"
    return Path(config.uploads_folder).resolve().parent / ".drill"


def _is_sqlite() -> bool:
    return database_url(settings.current()).get_backend_name() == "sqlite"


def _refuse_full_disk(scratch: Path, file: Path, header: Header) -> None:
    needed = header.files.bytes if header.files else 0
    if _is_sqlite():
        # It is unpacked from a copy, and a migration may write all of it again.
        needed += file.stat().st_size + 2 * sqlite.size()
    free = shutil.disk_usage(scratch).free
    if needed > free:
        raise BackupError(
            f"A drill may need {needed // MEGABYTE:,} MB in {scratch}, and only"
            f" {free // MEGABYTE:,} MB are free. Free disk space, then run this again."
        )


@contextmanager
def _scratch_url(scratch: Path) -> Iterator[str]:
    """Yield the URL of an empty database."""
    if _is_sqlite():
        yield urls.of_path("sqlite:///", scratch / "drill.db")
        return
    with scratch_database() as url:
        setting = url.set(drivername="postgresql")
        yield setting.render_as_string(hide_password=False)


def _environment(scratch: Path, url: str) -> dict[str, str]:
    """Return the environment of processes whose data is in the scratch place."""
    return os.environ | {
        "APP_DATABASE_URL": url,
        "APP_UPLOADS_FOLDER": str(scratch / "uploads"),
        "APP_UPLOADS_URL": "",  # a bucket's files are live data
        "APP_AUDIT_ANCHORS": str(scratch / "audit-anchors"),
        "APP_METRICS_FOLDER": str(scratch / "metrics"),
    }


def _run(environment: dict[str, str], *command: str) -> None:
    """Run a Flask command; on failure, print its output."""
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-m", "flask", "--app", "wsgi", *command],
        cwd=Path(current_app.root_path).parent,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    if done.returncode:
        output, _, reason = done.stdout.rpartition("Error: ")
        click.echo(output if reason else done.stdout, nl=False, err=True)
        reason = reason.strip() or f"it ended with {done.returncode}: see above."
        raise BackupError(f"`flask {' '.join(command)}` failed: {reason}")


def _refuse_missing_files(folder: Path, expected: Files | None) -> None:
    files = list(LocalFolder(folder).files())
    actual = Files(len(files), sum(file.size for file in files))
    if actual != (expected or Files(0, 0)):
        raise BackupError(f"The backup lists {expected}, but {actual} were restored.")


@contextmanager
def _failures_recorded(start: float) -> Iterator[None]:
    """Record a failure, and end the command with its message."""
    try:
        yield
    except (BackupError, OSError, sqlite3.Error, psycopg.Error) as error:
        events.emit("sys_restore_drill_failed", reason=str(error))
        seconds = round(time.monotonic() - start, 1)
        drill_results.remember_drill(failed=True, seconds=seconds)
        raise click.ClickException(f"The drill failed. {error}") from None
