"""What both storages promise: the folder, and a bucket on a real server."""

import io
import secrets
import tracemalloc
from datetime import timedelta
from pathlib import Path

import pytest

from bulwark.database import utcnow
from bulwark.uploads.storage import LocalFolder, Storage, new_name
from tests.bucket import BucketServer

SIZES = (0, 1, 65535, 65536, 65537, 3_000_000)
LARGE = 40_000_000  # several parts


@pytest.fixture(params=["folder", "bucket"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "folder":
        return LocalFolder(tmp_path / "uploads")
    server: BucketServer = request.getfixturevalue("bucket_server")
    from bulwark.uploads.bucket import Bucket

    return Bucket(server.url())


class Generated(io.RawIOBase):
    """A source that can't be rewound, as in a restore; it may fail at its end."""

    def __init__(self, size: int, *, fails: bool = False) -> None:
        self.left, self.fails = size, fails

    def readable(self) -> bool:
        return True

    def readinto(self, target: memoryview) -> int:  # type: ignore[override]
        if self.fails and not self.left:
            raise OSError("the source is gone")
        count = min(len(target), self.left)
        target[:count] = b"x" * count
        self.left -= count
        return count


def put(storage: Storage, content: bytes) -> str:
    name = new_name()
    storage.write(name, io.BytesIO(content))
    return name


def content_of(storage: Storage, name: str) -> bytes:
    with storage.open(name) as file:
        return file.read()


@pytest.mark.parametrize("size", SIZES)
def test_a_file_comes_back_as_it_was(storage: Storage, size: int):
    content = secrets.token_bytes(size)
    name = put(storage, content)
    assert content_of(storage, name) == content
    (found,) = storage.files()
    assert (found.name, found.size) == (name, size)
    assert abs(utcnow() - found.stored_at) < timedelta(minutes=1)


def test_a_file_is_replaced(storage: Storage):
    name = put(storage, b"before")
    storage.write(name, io.BytesIO(b"after"))
    assert content_of(storage, name) == b"after"


def test_a_file_that_is_missing_is_reported_and_may_be_deleted(storage: Storage):
    name = put(storage, b"x")
    for _ in range(2):
        storage.delete(name)
    assert list(storage.files()) == []
    with pytest.raises(FileNotFoundError):
        storage.open(name)


@pytest.mark.parametrize("name", ["", "../" + "a" * 29, "A" * 32, "a" * 31])
def test_what_is_not_a_name_is_refused(storage: Storage, name: str):
    for action in (storage.open, storage.delete):
        with pytest.raises(ValueError, match="no such name"):
            action(name)
    with pytest.raises(ValueError, match="no such name"):
        storage.write(name, io.BytesIO(b"x"))


@pytest.mark.parametrize("size", [1000, LARGE])
def test_a_source_that_fails_leaves_no_file(storage: Storage, size: int):
    source = io.BufferedReader(Generated(size, fails=True))
    with pytest.raises(OSError, match="the source is gone"):
        storage.write(new_name(), source)
    assert list(storage.files()) == []


def test_a_large_file_is_never_in_memory_as_a_whole(storage: Storage):
    name, size = new_name(), 3 * LARGE
    tracemalloc.start()
    try:
        storage.write(name, io.BufferedReader(Generated(size)))
        _, written = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        with storage.open(name) as file:
            read = sum(len(chunk) for chunk in iter(lambda: file.read(65536), b""))
        before, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert read == size
    assert written < size / 2
    assert peak - before < 2_000_000
