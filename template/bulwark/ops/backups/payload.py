"""What a backup contains: the uploaded files, then the output of the database.

Each file is a line, `name size`, and its content. The line `database` precedes the
rest. The database comes last because its size is not known. The files are listed after
the database's snapshot was taken: files never change, and none is deleted meanwhile, so
every file that the snapshot refers to is there.
"""

import fcntl
import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, cast

from bulwark.ops.backups.contents import BackupError, Files
from bulwark.uploads import cleanup, storage
from bulwark.uploads.storage import StoredFile

DATABASE = b"database\n"
LINE = 100  # bytes of a line, at most
CHUNK = 64 * 1024


@contextmanager
def locked_files() -> Iterator[None]:
    """Keep the clean-up from deleting files."""
    with cleanup.lock(fcntl.LOCK_SH):
        yield


def listed() -> tuple[Files, list[StoredFile]]:
    """Return the files to back up, and their count and size."""
    files = sorted(storage.current().files())
    return Files(len(files), sum(file.size for file in files)), files


def joined(files: list[StoredFile], database: IO[bytes]) -> IO[bytes]:
    """Return a stream of files and of a database."""
    return cast(IO[bytes], io.BufferedReader(_Joined(_parts(files, database)), CHUNK))


def database_of(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Store the files of a payload, then yield the database's part.

    It begins when the first chunk is read, after the database was found to be ready.
    """
    payload = cast(IO[bytes], io.BufferedReader(_Joined(chunks), CHUNK))
    _restore_files(payload)
    yield from _rest(payload)


def _restore_files(payload: IO[bytes]) -> None:
    """Store the files, and leave the stream at the database.

    Those that exist are written again, as they may be damaged. Until the database is
    restored no row refers to the others, so a restore that fails later has changed
    nothing.
    """
    while (line := payload.readline(LINE)) != DATABASE:
        name, size = _parsed(line)
        file = _Part(payload, size)
        storage.current().write(name, cast(IO[bytes], io.BufferedReader(file)))


def _rest(payload: IO[bytes]) -> Iterator[bytes]:
    """Yield the rest of a stream."""
    while chunk := payload.read(CHUNK):
        yield chunk


def _parts(files: list[StoredFile], database: IO[bytes]) -> Iterator[bytes]:
    for file in files:
        yield f"{file.name} {file.size}\n".encode()
        left = file.size
        with storage.current().open(file.name) as source:
            while left and (chunk := source.read(min(CHUNK, left))):
                left -= len(chunk)
                yield chunk
        if left:
            raise BackupError(f"The uploaded file {file.name} is cut short.")
    yield DATABASE
    yield from _rest(database)


def _parsed(line: bytes) -> tuple[str, int]:
    name, _, size = line.decode(errors="replace").rstrip("\n").partition(" ")
    if not storage.is_name(name) or not (size.isascii() and size.isdigit()):
        raise BackupError("The backup contains an unexpected file.")
    return name, int(size)


class _Joined(io.RawIOBase):
    """The bytes of several chunks."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self.chunks, self.left = chunks, memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, target: memoryview) -> int:  # type: ignore[override]
        while not self.left:
            chunk = next(self.chunks, None)
            if chunk is None:
                return 0
            self.left = memoryview(chunk)
        count = min(len(target), len(self.left))
        target[:count], self.left = self.left[:count], self.left[count:]
        return count


class _Part(io.RawIOBase):
    """The next bytes of a stream."""

    def __init__(self, source: IO[bytes], size: int) -> None:
        self.source, self.size = source, size

    def readable(self) -> bool:
        return True

    def readinto(self, target: memoryview) -> int:  # type: ignore[override]
        chunk = self.source.read(min(len(target), self.size))
        target[: len(chunk)] = chunk
        self.size -= len(chunk)
        return len(chunk)
