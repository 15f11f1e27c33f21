"""`flask restore-drill`: the newest backup is restored beside the live data."""

import io
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from sqlalchemy import make_url

from bulwark import settings
from bulwark.audit import anchors, events
from bulwark.database import db
from bulwark.jobs import queue
from bulwark.ops.backups import drill, drill_results
from bulwark.uploads import storage
from tests.bulwark.ops.backups.support import POSTGRESQL, Service, on_sqlite

BUCKET = "https://key:secret@storage.invalid/live?region=any"
ANCHOR = "2000-01-01T00:00:00+00:00 1:" + "0" * 64 + "\n"


@pytest.fixture
def place(service: Service, tmp_path: Path) -> Iterator[Path]:
    """The folder of the copy; the service has an uploaded file."""
    uploads = storage.LocalFolder(tmp_path / "data/uploads")
    service.patch.setitem(service.app.extensions, "uploads", uploads)
    service.set(
        uploads_folder=str(uploads.folder),
        audit_anchors=str(tmp_path / "audit-anchors"),
    )
    uploads.write(storage.new_name(), io.BytesIO(b"a receipt"))
    service.patch.setenv("APP_SLUG", "bulwark")
    service.patch.setenv("FLASK_SKIP_DOTENV", "1")
    service.patch.setenv("APP_UPLOADS_URL", BUCKET)  # of the live files
    queue.flush()
    with service.app.test_request_context():
        events.record("authn_login_success")
        db.session.commit()
    yield tmp_path / "data/.drill"
    queue.flush()


class Live(NamedTuple):
    """What a drill must not change."""

    tables: dict[str, list[object]]
    files: dict[str, bytes]


def live(service: Service) -> Live:
    files = [path for path in service.folder.parent.rglob("*") if path.is_file()]
    return Live(
        {name: service.execute(f'SELECT * FROM "{name}"') for name in service.tables()},
        {str(path): path.read_bytes() for path in files if path != service.file},
    )


def results(service: Service) -> drill_results.Results:
    with service.app.app_context():
        return drill_results.read()


def fails(service: Service) -> str:
    """Run a drill that has to fail, and change nothing; return its message."""
    before = live(service)
    output = service.refuses("restore-drill", service.folder)
    assert results(service).failed
    assert live(service) == before
    return output


def test_a_drill_restores_the_newest_backup_and_leaves_nothing(
    service: Service, place: Path
):
    service.backup().unlink()
    fails(service)
    anchor(service)
    service.backup()
    service.execute("CREATE TABLE later (number INTEGER)")
    newest = service.backup()
    anchor(service)
    before = live(service)
    left_by_a_killed_drill(place)
    done = service.run("restore-drill", service.folder)
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith(f"Restored {newest}, made 2026-11-")
    assert f"{len(before.tables)} tables" in done.stdout
    assert "1 uploaded files" in done.stdout
    assert "sys_restore_drill_passed" in done.stderr
    assert "sys_backup_restored" not in done.stderr
    assert not place.exists()
    assert live(service) == before
    found = results(service)
    assert found.passed_at
    assert not found.failed
    assert found.seconds > 0


def anchor(service: Service) -> None:
    """Record an event, and store the end of the audit trail a day later."""
    with service.app.test_request_context(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(anchors, "utcnow", service.next_day)
        events.record("authn_logout")
        db.session.commit()
        number = len(anchors.stored_anchors())
        anchors.anchor.call_local()
        assert len(anchors.stored_anchors()) == number + 1


def left_by_a_killed_drill(place: Path) -> None:
    (place / "uploads/ab").mkdir(parents=True)
    for name in ("drill.db", "uploads/ab/file"):
        (place / name).write_bytes(b"left")


def test_a_changed_audit_trail_fails_the_drill(service: Service, place: Path):
    service.backup()
    with service.app.app_context():
        Path(settings.current().audit_anchors).write_text(ANCHOR)
    assert "row 1 does not match its anchor" in fails(service)
    assert not place.exists()


def test_a_backup_of_a_newer_release_fails_the_drill(service: Service, place: Path):
    service.execute("INSERT INTO alembic_version VALUES ('of_2030')")
    service.backup()
    assert "made by a newer release" in fails(service)
    assert not place.exists()


def test_before_the_first_backup_a_drill_has_no_result(service: Service, place: Path):
    for _ in range(2):
        done = service.run("restore-drill", service.folder)
        assert "nothing to test" in done.output
        assert done.exit_code == 0
        assert not results(service).failed
        service.folder.mkdir(exist_ok=True)


def test_once_the_backups_are_gone_a_drill_fails(service: Service, place: Path):
    service.backup().unlink()
    (service.folder / "other-20261101T030000Z.backup").write_bytes(b"")
    assert "There is no backup of 'bulwark'" in fails(service)
    shutil.rmtree(service.folder)
    assert "No such file or directory" in fails(service)


def test_a_damaged_backup_fails_the_drill_with_the_reason(
    service: Service, place: Path
):
    file = service.backup()
    whole = file.read_bytes()
    flipped = bytearray(whole)
    flipped[-20] ^= 1
    for content in (whole[:-10], bytes(flipped)):
        file.write_bytes(content)
        assert "is damaged or cut short" in fails(service)
    file.write_bytes(b"Dear all,")
    assert "is not a backup that this release can read" in fails(service)


def test_a_backup_of_another_service_fails_the_drill(service: Service, place: Path):
    file = service.backup()
    service.set(slug="other")
    file.rename(file.with_name(file.name.replace("bulwark", "other")))
    assert "belongs to the service 'bulwark'" in fails(service)


@on_sqlite
def test_a_full_disk_fails_the_drill_before_it_writes(service: Service, place: Path):
    service.backup()
    usage = shutil.disk_usage(service.folder)._replace(free=service.file.stat().st_size)
    service.patch.setattr(shutil, "disk_usage", lambda _: usage)
    service.patch.setattr(drill, "_run", None)
    assert "Free disk space" in fails(service)


def test_two_drills_do_not_run_at_once(service: Service, place: Path):
    service.backup()
    output = list[str]()

    def and_another(*_: object) -> None:
        output.append(service.refuses("restore-drill", service.folder))

    service.patch.setattr(drill, "_run", and_another)
    service.run("restore-drill", service.folder)
    assert "Another command is using" in output[0]
    assert not place.exists()


def test_the_steps_do_not_know_the_live_data(service: Service, place: Path):
    service.backup()
    seen = dict[str, str]()
    service.patch.setattr(drill, "_run", lambda given, *_: seen.update(given))
    assert "lists 1 uploaded files, but 0 uploaded files" in fails(service)
    with service.app.app_context():
        assert settings.current().database_url not in seen.values()
    database = make_url(seen["APP_DATABASE_URL"]).database or ""
    assert database.endswith("_drill" if POSTGRESQL else f"{place}/drill.db")
    for name in ("APP_UPLOADS_FOLDER", "APP_AUDIT_ANCHORS", "APP_METRICS_FOLDER"):
        assert seen[name].startswith(f"{place}{os.sep}")
