"""`flask backup` and `flask restore`: there and back, and what a restore refuses."""

import os
import stat
import threading
from datetime import UTC, datetime

from sqlalchemy import text

from bulwark import mail
from bulwark.database import db
from tests.bulwark.ops.backups.support import (
    POSTGRESQL,
    Service,
)
from tests.conftest import GOOD_PASSWORD, Visitor, add_person


def test_a_restored_service_knows_its_users_their_factors_and_waiting_emails(
    service: Service, visitor: Visitor
):
    email = add_person(service.app, "zoe@example.org", totp=True)
    with service.app.app_context():
        mail.send("Hello", email, "A letter that waits")
        db.session.commit()
    file = service.backup()
    service.lose_all_data()
    service.restore(file)
    visitor.sign_in(email, GOOD_PASSWORD)
    assert visitor.is_signed_in()
    assert [str(letter["Subject"]) for letter in visitor.letters()] == ["Hello"]


def test_both_commands_report_what_they_did(service: Service):
    done = service.run("backup", service.folder)
    (file,) = service.folder.iterdir()
    rows = sum(
        service.execute(f'SELECT count(*) FROM "{t}"')[0][0] for t in service.tables()
    )
    contents = f"{len(service.tables())} tables, {rows} rows"
    assert done.stdout.startswith(
        f"Wrote {file}: {file.stat().st_size:,} bytes, {contents}"
    )
    assert "does not contain them: keep a copy of env.production" in done.stdout
    assert "sys_backup_created" in done.stderr
    restored = service.run("restore", file, "--replace")
    assert restored.stdout.startswith(
        f"Restored {file}, made 2026-11-02T03:00:00+00:00"
    )
    assert contents in restored.stdout
    assert "sys_backup_restored" in restored.stderr


def test_a_backup_is_one_moment_while_others_write(service: Service):
    service.execute("CREATE TABLE pairs (half INTEGER)")
    service.execute(
        "INSERT INTO pairs WITH RECURSIVE n(i) AS"
        " (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000) SELECT i FROM n"
    )
    stop, waits = threading.Event(), list[float]()

    def write() -> None:
        while not stop.is_set():
            start = datetime.now(UTC)
            with service.app.app_context(), db.engine.begin() as connection:
                connection.execute(text("INSERT INTO pairs VALUES (1)"))
                connection.execute(text("INSERT INTO pairs VALUES (2)"))
            waits.append((datetime.now(UTC) - start).total_seconds())

    writer = threading.Thread(target=write)
    writer.start()
    try:
        # Somebody reads too, so SQLite's newest pages stay in a file of their own.
        with service.app.app_context(), db.engine.connect():
            files = [service.backup() for _ in range(3)]
    finally:
        stop.set()
        writer.join()
    ((at_the_end,),) = service.execute("SELECT count(*) FROM pairs")
    counts = []
    for file in files:
        service.lose_all_data()
        service.restore(file)
        counts += [
            number for (number,) in service.execute("SELECT count(*) FROM pairs")
        ]
    assert all(number % 2 == 0 for number in counts)
    assert 100_000 <= counts[0] < counts[1] < counts[2] <= at_the_end
    assert max(waits) < 2


def test_only_its_owner_may_read_a_backup(service: Service):
    umask = os.umask(0)
    try:
        file = service.backup()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert stat.S_IMODE(service.folder.stat().st_mode) == 0o700
        service.restore(file, "--replace")
    finally:
        os.umask(umask)
    if not POSTGRESQL:
        assert stat.S_IMODE(service.file.stat().st_mode) == 0o600


def test_data_is_replaced_only_on_request(service: Service):
    file = service.backup()
    service.execute("CREATE TABLE later (number INTEGER)")
    assert "add --replace" in service.refuses("restore", file)
    assert "later" in service.tables()
    service.restore(file, "--replace")
    assert "later" not in service.tables()


def test_nothing_is_restored_under_a_running_service(service: Service):
    file = service.backup()
    with service.app.app_context(), db.engine.connect() as connection:
        connection.execute(text("SELECT * FROM roles"))
        output = service.refuses("restore", file, "--replace")
    assert "Stop the service" in output
    service.restore(file, "--replace")


def test_a_backup_of_a_newer_release_is_refused_and_of_an_older_one_is_not(
    service: Service,
):
    service.execute(
        "UPDATE alembic_version SET version_num = 'later' "
        "WHERE version_num = (SELECT max(version_num) FROM alembic_version)"
    )
    newer = service.backup()
    service.execute("DELETE FROM alembic_version WHERE version_num = 'later'")
    older = service.backup()
    assert "no migration later" in service.refuses("restore", newer, "--replace")
    assert "`flask prepare`" in service.restore(older, "--replace")


def test_a_service_without_data_has_no_backup(service: Service):
    service.lose_all_data()
    assert "Run `flask prepare` first" in service.refuses("backup", service.folder)
    service.execute("CREATE TABLE strange (number INTEGER)")
    assert "Run `flask prepare` first" in service.refuses("backup", service.folder)
    if not POSTGRESQL:
        service.set(database_url="sqlite://")
        assert "is in memory" in service.refuses("backup", service.folder)
    assert service.files() == []
