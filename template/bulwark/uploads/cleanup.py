"""Files that no row refers to are deleted, but not on the day they were stored.

A failed request, a transaction that was rolled back, a deleted row: each leaves a file.
Because it is deleted later, a transaction can be undone, and a backup can copy what its
snapshot refers to.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from huey import crontab
from sqlalchemy import select

from bulwark import settings
from bulwark.audit import events
from bulwark.database import Model, db, utcnow
from bulwark.jobs import queue
from bulwark.observability.logging import log
from bulwark.uploads import storage
from bulwark.uploads.models import Upload

GRACE = timedelta(days=1)
FEW = 100  # files; of more, at most half are deleted at a time


@queue.periodic_task(crontab(hour="4", minute="13"), name="delete_unused_uploads")  # type: ignore[untyped-decorator]
def delete_unused() -> None:
    """Delete the files of no row, unless a backup is being written."""
    if not models():
        return
    with lock(fcntl.LOCK_EX | fcntl.LOCK_NB) as locked:
        if not locked:
            return
        before = utcnow() - GRACE
        files = list(storage.current().files())  # before the rows, which come later
        used = _used()
        unused = [f for f in files if f.name not in used and f.stored_at < before]
        if len(unused) > max(FEW, len(files) // 2):
            # The database is probably wrong, or another service uses the storage.
            log.error("uploads_not_deleted", unused=len(unused), files=len(files))
            return
        for file in unused:
            storage.current().delete(file.name)
    if unused:
        events.emit("upload_delete", count=len(unused))


def models() -> list[type[Upload]]:
    """Return all models whose rows are files."""
    mapped = (mapper.class_ for mapper in Model.registry.mappers)
    return [model for model in mapped if issubclass(model, Upload)]


@contextmanager
def lock(operation: int) -> Iterator[bool]:
    """Lock the files, shared or exclusively; yield whether that succeeded."""
    folder = Path(settings.current().uploads_folder)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, operation)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(handle)


def _used() -> set[str]:
    names: set[str] = set()
    for model in models():
        names.update(db.session.scalars(select(model.storage_name)))
    return names
