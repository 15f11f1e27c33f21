"""Full disks, killed commands: a backup is complete or absent."""

import os
import random
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bulwark.ops.backups import commands, filesystem
from tests.bulwark.ops.backups.support import (
    Service,
    kill,
)


@contextmanager
def no_file_longer_than(size: int) -> Iterator[None]:
    """Fail whoever writes more, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [0, 2000, 20_000])
def test_a_full_disk_costs_no_older_backup(service: Service, size: int):
    older = service.backup()
    service.execute("CREATE TABLE noise (value VARCHAR(32))")
    service.execute(
        "INSERT INTO noise VALUES "
        + ", ".join(f"('{random.randbytes(16).hex()}')" for _ in range(3000))
    )
    with no_file_longer_than(size):
        assert service.refuses("backup", service.folder, "--keep", "1")
    assert service.files() == [older.name]
    service.backup()


def test_a_folder_that_is_full_costs_no_older_backup(
    service: Service, monkeypatch: pytest.MonkeyPatch
):
    older = service.backup()
    full = os.open("/dev/full", os.O_WRONLY)
    with monkeypatch.context() as patch:
        patch.setattr(filesystem, "create_private", lambda _: os.fdopen(full, "wb"))
        output = service.refuses("backup", service.folder, "--keep", "1")
    assert "No space left on device" in output
    assert service.files() == [older.name]


def test_a_backup_that_cannot_be_read_back_does_not_count(
    service: Service, monkeypatch: pytest.MonkeyPatch
):
    older = service.backup()

    def unreliable(path: Path) -> None:
        data = bytearray(path.read_bytes()) if path.is_file() else bytearray(1)
        data[-1] ^= 1
        if path.is_file():
            path.write_bytes(data)

    with monkeypatch.context() as patch:
        patch.setattr(filesystem, "sync", unreliable)  # a disk that changes a bit
        assert "damaged" in service.refuses("backup", service.folder, "--keep", "1")
    assert service.files() == [older.name]


def test_two_backups_do_not_run_at_once(
    service: Service, monkeypatch: pytest.MonkeyPatch
):
    output = list[str]()
    write = commands._write

    def write_slowly(path: Path, made: str) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(commands, "_write", write)
            output.append(service.refuses("backup", service.folder))
        write(path, made)

    monkeypatch.setattr(commands, "_write", write_slowly)
    file = service.backup()
    assert "Another command is using" in output[0]
    assert service.files() == [file.name]


def test_a_backup_that_is_killed_leaves_nothing_that_counts(service: Service):
    older = service.backup()
    kill(service, "archive.verify", "backup", service.folder)
    assert [path.name for path in service.folder.rglob("*.backup")] == [older.name]
    new = service.backup()
    assert service.files() == [older.name, new.name]
