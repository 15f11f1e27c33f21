"""Where files are stored, under random names: a private folder, or a `bucket`."""

import os
import secrets
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, NamedTuple, Protocol

from flask import current_app
from werkzeug.exceptions import ServiceUnavailable

from bulwark.observability.logging import log
from bulwark.web.errors import SOON
from bulwark.web.input_validation import SCRATCH

NAME_BYTES = 16
NAME_LENGTH = 2 * NAME_BYTES
DIGITS = frozenset("0123456789abcdef")


class StoredFile(NamedTuple):
    """A file in the storage: its name, size in bytes, and when it was stored."""

    name: str
    size: int
    stored_at: datetime


class StorageError(OSError):
    """The storage can't be reached, or refuses a request. The message has no secret."""


class Storage(Protocol):
    """A place for files, each with a name from `new_name`.

    Each method, and reading a file, may raise a `StorageError`.
    """

    def write(self, name: str, source: IO[bytes]) -> None:
        """Store a file, completely or not at all; one of this name is replaced."""

    def open(self, name: str) -> IO[bytes]:
        """Open a file, or raise a `FileNotFoundError`."""

    def delete(self, name: str) -> None:
        """Delete a file, if it exists."""

    def files(self) -> Iterator[StoredFile]:
        """Yield all files."""


def new_name() -> str:
    """Return a random name, which nobody can guess."""
    return secrets.token_hex(NAME_BYTES)


def is_name(text: str) -> bool:
    """Return whether a text has the form of a name, so that it can't be a path."""
    return len(text) == NAME_LENGTH and DIGITS.issuperset(text)


def check_name(name: str) -> None:
    """Raise a `ValueError` for what is not a name, and could be a path."""
    if not is_name(name):
        raise ValueError("a stored file has no such name")


def current() -> Storage:
    """Return the storage of the running app."""
    storage: Storage = current_app.extensions["uploads"]
    return storage


def unavailable(error: StorageError) -> ServiceUnavailable:
    """Log an error of the storage, and return the 503 for the client."""
    log.error("uploads_unavailable", reason=str(error))
    hint = "Files are not available at the moment. Try again in a minute."
    return ServiceUnavailable(hint, retry_after=SOON)


class LocalFolder:
    """A folder, with subfolders for the first two digits of the names."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, name: str, source: IO[bytes]) -> None:
        """Store a file so that it survives a power failure."""
        target, part = self._path(name), self.folder / SCRATCH / name
        for folder in (self.folder, part.parent, target.parent):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            with _create_private(part) as file:
                shutil.copyfileobj(source, file)
                file.flush()
                os.fsync(file.fileno())
            part.rename(target)
        finally:
            part.unlink(missing_ok=True)
        handle = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def open(self, name: str) -> IO[bytes]:
        """Open a file."""
        return self._path(name).open("rb")

    def delete(self, name: str) -> None:
        """Delete a file, if it exists."""
        self._path(name).unlink(missing_ok=True)

    def files(self) -> Iterator[StoredFile]:
        """Yield all files; one may be deleted meanwhile."""
        for path in self.folder.glob("[0-9a-f][0-9a-f]/*"):
            if is_name(path.name) and path.is_file():
                found = path.stat()
                stored_at = datetime.fromtimestamp(found.st_mtime, UTC)
                yield StoredFile(path.name, found.st_size, stored_at)

    def _path(self, name: str) -> Path:
        check_name(name)
        return self.folder / name[:2] / name


def _create_private(path: Path) -> IO[bytes]:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
