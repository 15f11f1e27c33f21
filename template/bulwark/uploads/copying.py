"""`flask copy-uploads`: all files into the bucket, or back into the folder."""

import fcntl
from pathlib import Path

import click
from flask.cli import with_appcontext

from bulwark import settings
from bulwark.uploads import cleanup, storage
from bulwark.uploads.storage import LocalFolder, Storage

NO_BUCKET = (
    "APP_UPLOADS_URL is not set, so there is no bucket. Set it for this command: see"
    " docs/uploads.md."
)


@click.command("copy-uploads")
@click.argument("target", type=click.Choice(["bucket", "folder"]))
@with_appcontext
def copy_uploads(target: str) -> None:
    """Copy uploaded files to TARGET: from the folder to the bucket, or back.

    It skips those that are there, so it can be run again, and deletes none.
    """
    config = settings.current()
    if not config.uploads_url:
        raise click.ClickException(NO_BUCKET)
    folder, bucket = LocalFolder(Path(config.uploads_folder)), storage.current()
    try:
        with cleanup.lock(fcntl.LOCK_SH):
            if target == "bucket":
                copied, skipped = copy(folder, bucket)
            else:
                copied, skipped = copy(bucket, folder)
    except OSError as error:
        raise click.ClickException(f"{error} Run this again to continue.") from None
    click.echo(f"Copied {copied} files; {skipped} were there.")


def copy(source: Storage, target: Storage) -> tuple[int, int]:
    """Copy the files that a storage lacks; return their number, and that of others."""
    there = {file.name: file.size for file in target.files()}
    copied = skipped = 0
    for file in source.files():
        if there.get(file.name) == file.size:
            skipped += 1
            continue
        with source.open(file.name) as content:
            target.write(file.name, content)
        copied += 1
    return copied, skipped
