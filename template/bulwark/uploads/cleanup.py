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
from bulwark.uploads.storage import StoredFile

GRACE = timedelta(days=1)
FEW = 100  # files, which are deleted in any case


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
        if len(unused) > FEW and not _belong_together(files, used):
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
    """Lock the files, shared or exclusively; yield whether that succeeded.

    Without the folder there is nothing to lock: a service without uploads may have no
    place for it.
    """
    folder = Path(settings.current().uploads_folder)
    if not folder.is_dir():
        yield True
        return
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


def _belong_together(files: list[StoredFile], used: set[str]) -> bool:
    """Return whether most rows have their file, unlike in a wrong database or folder.

    The number of unused files shows nothing: a user can store and delete many.
    """
    missing = used.difference(file.name for file in files)
    return len(missing) < len(used) / 2


def _used() -> set[str]:
    names: set[str] = set()
    for model in models():
        names.update(db.session.scalars(select(model.storage_name)))
    return names
