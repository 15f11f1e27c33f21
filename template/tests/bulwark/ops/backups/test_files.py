"""Uploaded files in a backup: there and back, whatever happens meanwhile."""

import io
import os
import secrets
import shutil
from pathlib import Path

import pytest

from bulwark.ops.backups import archive, contents, payload
from bulwark.uploads import storage
from tests.bucket import BucketServer
from tests.bulwark.ops.backups.support import Service

# Around the sizes of chunks.
SIZES = (0, 1, 65535, 65536, 65537, 3_000_000)


@pytest.fixture
def folder(service: Service, tmp_path: Path) -> Path:
    """The folder of the service's uploads, of the test's own."""
    own = storage.LocalFolder(tmp_path / "uploads")
    service.patch.setitem(service.app.extensions, "uploads", own)
    service.set(uploads_folder=str(own.folder))
    return own.folder


def keep(service: Service, *sizes: int) -> dict[str, bytes]:
    kept = {storage.new_name(): secrets.token_bytes(size) for size in sizes}
    with service.app.app_context():
        for name, content in kept.items():
            storage.current().write(name, io.BytesIO(content))
    return kept


def stored(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.name: path.read_bytes() for path in files}


def test_files_of_any_size_are_there_again(service: Service, folder: Path):
    kept = keep(service, *SIZES)
    done = service.run("backup", service.folder)
    assert f"{len(SIZES)} uploaded files" in done.stdout
    shutil.rmtree(folder)
    service.lose_all_data()
    (file,) = service.folder.iterdir()
    service.restore(file)
    assert stored(folder) == kept


def test_files_are_unreadable_in_a_backup(service: Service, folder: Path):
    (content,) = keep(service, 4000).values()
    assert content[:32] not in service.backup().read_bytes()


def test_a_restore_keeps_later_files_and_mends_broken_ones(
    service: Service, folder: Path
):
    kept = keep(service, 5000, 5000)
    file = service.backup()
    later = keep(service, 10)
    cut, encrypted = kept
    (folder / cut[:2] / cut).write_bytes(b"cut")
    (folder / encrypted[:2] / encrypted).write_bytes(b"x" * 5000)
    service.restore(file, "--replace")
    assert stored(folder) == kept | later


def test_a_service_without_uploads_needs_no_place_for_them(
    service: Service, folder: Path
):
    file = service.backup()
    service.restore(file, "--replace")
    assert not folder.exists()


def test_a_refused_restore_stores_no_file(service: Service, folder: Path):
    keep(service, 5000)
    file = service.backup()
    shutil.rmtree(folder)
    assert "add --replace" in service.refuses("restore", file)
    assert stored(folder) == {}


def test_a_file_that_is_stored_after_the_snapshot_harms_nothing(
    service: Service, folder: Path
):
    listed = payload.listed

    def and_another():
        keep(service, 7)
        return listed()

    service.patch.setattr(payload, "listed", and_another)
    file = service.backup()
    shutil.rmtree(folder)
    service.restore(file, "--replace")
    assert [len(content) for content in stored(folder).values()] == [7]


def test_a_file_that_is_cut_short_fails_the_backup(service: Service, folder: Path):
    (name,) = keep(service, 5000)
    listed = payload.listed

    def then_cut():
        found = listed()
        os.truncate(folder / name[:2] / name, 100)
        return found

    service.patch.setattr(payload, "listed", then_cut)
    assert "cut short" in service.refuses("backup", service.folder)
    assert service.files() == []


@pytest.mark.parametrize(
    "line",
    [
        *(b"../../../app/views.py 5\n", b"x\n", b"", b"a" * 32),
        *(b"a" * 32 + b" -1\n", b"a" * 32 + b" 5x\n", b"a" * 32 + b" \xb2\n"),
    ],
)
def test_a_name_that_is_a_path_or_a_wrong_size_is_not_restored(
    service: Service, folder: Path, line: bytes
):
    chunks = iter([line + b"hello", payload.DATABASE])
    with service.app.app_context(), pytest.raises(contents.BackupError):
        list(payload.database_of(chunks))
    assert stored(folder) == {}


def test_a_backup_of_an_earlier_release_is_restored(service: Service, folder: Path):
    service.execute("CREATE TABLE before (number INTEGER)")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(archive, "MAGIC", archive.WITHOUT_FILES)
        patch.setattr(payload, "listed", lambda: (None, []))
        patch.setattr(payload, "joined", lambda _, database: database)
        file = service.backup()
    kept = keep(service, 10)
    service.lose_all_data()
    service.restore(file)
    assert "before" in service.tables()
    assert stored(folder) == kept


def test_files_in_a_bucket_are_there_again(
    service: Service, bucket_server: BucketServer
):
    from bulwark.uploads.bucket import Bucket

    own = Bucket(bucket_server.url())
    service.patch.setitem(service.app.extensions, "uploads", own)
    kept = keep(service, *SIZES)
    file = service.backup()
    for path in bucket_server.files.iterdir():
        path.unlink()
    service.lose_all_data()
    service.restore(file)
    assert stored(bucket_server.files) == kept


def test_a_bucket_that_is_down_fails_the_backup(
    service: Service, bucket_server: BucketServer
):
    from bulwark.uploads.bucket import Bucket

    own = Bucket(bucket_server.url())
    service.patch.setitem(service.app.extensions, "uploads", own)
    bucket_server.stop()
    assert "unreachable" in service.refuses("backup", service.folder)
    assert service.files() == []
