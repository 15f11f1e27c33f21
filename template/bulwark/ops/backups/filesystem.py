"""Private files and folders, and writes that survive a power failure."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from bulwark.ops.backups.contents import BackupError


@contextmanager
def private_folder(path: Path) -> Iterator[Path]:
    """Yield an empty private folder for one command at a time, then remove it.

    Files left behind by a killed command are deleted first.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    with ExitStack() as stack:
        lock = os.open(path, os.O_RDONLY)
        stack.callback(os.close, lock)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BackupError(f"Another command is using {path}.") from None
        stack.callback(shutil.rmtree, path)
        for left in path.iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        yield path


def create_private(path: Path) -> IO[bytes]:
    """Create a file that only its owner can read."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def sync(path: Path) -> None:
    """Make sure that a file, or the names in a folder, survive a power failure."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
