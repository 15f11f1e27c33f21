"""SQLite: its files are copied and replaced as a whole."""

import os
from pathlib import Path

import pytest

from bulwark import settings
from bulwark.database import db
from bulwark.jobs import queue
from bulwark.mail import outbox
from bulwark.ops.backups import filesystem
from tests.bulwark.ops.backups.support import (
    Service,
    kill,
    make_noise,
    on_sqlite,
    overwrite_page,
)

pytestmark = on_sqlite


def test_queued_jobs_come_back_and_later_ones_go(service: Service):
    without = service.backup()
    for name in ("app", "storage_class", "storage_kwargs", "storage"):
        service.patch.setattr(queue, name, getattr(queue, name))
    with service.app.app_context():
        queue.init_app(service.app, settings.current())
    queue.create_tables()
    outbox._deliver_in_worker.schedule(delay=3600)
    queue.storage.close()
    file = service.backup()
    service.lose_all_data()
    service.restore(file)
    assert queue.pending_count() == 1
    queue.storage.close()
    service.restore(without, "--replace")
    assert [path.name for path in service.file.parent.iterdir()] == [service.file.name]


def test_a_corrupt_database_can_be_replaced(service: Service):
    file, roles = service.backup(), service.execute("SELECT * FROM roles")
    service.file.write_bytes(os.urandom(8192))
    assert "add --replace" in service.refuses("restore", file)
    service.restore(file, "--replace")
    assert roles
    assert service.execute("SELECT * FROM roles") == roles


def test_a_corrupt_database_costs_no_older_backup(service: Service):
    root = make_noise(service)
    older = service.backup()
    overwrite_page(service.file, root)
    assert service.refuses("backup", service.folder, "--keep", "1")
    assert service.files() == [older.name]


def test_what_was_left_of_a_lost_database_does_not_change_the_restored_one(
    service: Service,
):
    file, log = service.backup(), Path(f"{service.file}-wal")
    with service.app.app_context(), db.engine.connect():
        service.execute("CREATE TABLE later (number INTEGER)")
        left = log.read_bytes()
    service.file.unlink()
    log.write_bytes(left)
    service.restore(file)
    assert "later" not in service.tables()


def test_what_the_disk_spoiled_in_a_restore_does_not_replace_the_data(
    service: Service, monkeypatch: pytest.MonkeyPatch
):
    root = make_noise(service)
    file = service.backup()
    service.execute("CREATE TABLE later (number INTEGER)")

    def spoil(path: Path) -> None:
        if path.name == "data":
            overwrite_page(path, root)

    with monkeypatch.context() as patch:
        patch.setattr(filesystem, "sync", spoil)
        assert "corrupt" in service.refuses("restore", file, "--replace")
    assert "later" in service.tables()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_the_data_is_not_restored_for_somebody_else(service: Service):
    file = service.backup()
    os.chown(service.file.parent, 12345, 12345)
    assert "Run this as the owner" in service.refuses("restore", file, "--replace")


def test_a_restore_that_is_killed_leaves_the_data_as_it_was(service: Service):
    file = service.backup()
    service.execute("CREATE TABLE later (number INTEGER)")
    kill(service, "sqlite.refuse_difference", "restore", file, "--replace")
    assert "later" in service.tables()
    service.restore(file, "--replace")
    assert "later" not in service.tables()
    assert [path.name for path in service.file.parent.iterdir()] == [service.file.name]
