"""Backups: complete or not there, opened by the keys alone, and trusted by nobody."""

import os
import random
import re
import resource
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from flask import Flask
from flask_migrate import upgrade
from sqlalchemy import NullPool, create_engine, inspect, make_url, text

from bulwark import mail, settings
from bulwark.database import db
from bulwark.database.engine import database_url
from bulwark.identity import accounts
from bulwark.jobs import queue
from bulwark.mail import outbox
from bulwark.ops import backups
from tests.conftest import GOOD_PASSWORD, ROOT, Visitor, add_person

POSTGRESQL = os.environ.get("APP_DATABASE_URL", "").startswith("postgresql")
on_sqlite = pytest.mark.skipif(POSTGRESQL, reason="is about SQLite's files")
on_postgresql = pytest.mark.skipif(not POSTGRESQL, reason="is about PostgreSQL")
OLD_KEY, NEW_KEY = b"an old key, 0123" * 2, b"the new key, 012" * 2
FIRST_DAY = datetime(2026, 11, 1, 3, tzinfo=UTC)


class Service:
    """The app on a database of the test's own, and its commands."""

    def __init__(self, app: Flask, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.app, self.patch = app, patch
        self.folder, self.file = folder / "backups", folder / "data/production.db"
        self.day = FIRST_DAY
        patch.setattr(backups, "utcnow", self.next_day)

    def next_day(self) -> datetime:
        self.day += timedelta(days=1)
        return self.day

    def set(self, **config: Any) -> None:
        with self.app.app_context():
            changed = replace(settings.current(), **config)
        self.patch.setitem(self.app.extensions, "bulwark", changed)

    def lose_all_data(self) -> None:
        """Go on with an empty database."""
        url = make_url(f"sqlite:///{self.file}")
        if POSTGRESQL:
            url = make_url(os.environ["APP_DATABASE_URL"])
            url = url.set(drivername="postgresql+psycopg")
            engine = create_engine(url, isolation_level="AUTOCOMMIT")
            url = url.set(database=f"{url.database}_backups")
            with engine.connect() as connection:
                for word in ("DROP DATABASE IF EXISTS", "CREATE DATABASE"):
                    connection.execute(text(f'{word} "{url.database}"'))
            engine.dispose()
        else:
            shutil.rmtree(self.file.parent, ignore_errors=True)
            self.file.parent.mkdir(mode=0o700)
        self.set(database_url=url.render_as_string(hide_password=False))
        with self.app.app_context():
            engine = create_engine(url, poolclass=NullPool)
            self.patch.setitem(db.engines, None, engine)

    def prepare(self) -> None:
        with self.app.app_context():
            upgrade(revision="heads")
            list(accounts.make_roles())
            db.session.commit()

    def run(self, *arguments: str | Path) -> Result:
        return self.app.test_cli_runner().invoke(args=list(map(str, arguments)))

    def backup(self, *options: str) -> Path:
        """Make a backup; return its file."""
        done = self.run("backup", self.folder, *options)
        assert done.exit_code == 0, done.output
        return Path(done.stdout.removeprefix("Wrote ").partition(": ")[0])

    def restore(self, *arguments: str | Path) -> str:
        done = self.run("restore", *arguments)
        assert done.exit_code == 0, done.output
        return done.stdout

    def refuses(self, *arguments: str | Path) -> str:
        """Run a command that has to fail in words; return them."""
        done = self.run(*arguments)
        assert isinstance(done.exception, SystemExit), repr(done.exception)
        assert (done.exit_code, done.stdout) == (1, ""), done.output
        assert f"sys_{arguments[0]}_failed" in done.stderr
        return done.stderr.rpartition("Error: ")[2]

    def files(self) -> list[str]:
        """Return all that lies in the folder of backups."""
        return sorted(path.name for path in self.folder.iterdir())

    def execute(self, statement: str) -> list[Any]:
        """Run SQL; return the rows."""
        with self.app.app_context(), db.engine.begin() as connection:
            done = connection.execute(text(statement))
            return [tuple(row) for row in done] if done.returns_rows else []

    def tables(self) -> list[str]:
        if not POSTGRESQL and not self.file.exists():
            return []
        with self.app.app_context():
            return inspect(db.engine).get_table_names()


@pytest.fixture
def service(app: Flask, tmp_path: Path) -> Iterator[Service]:
    """The app in a database on disk."""
    with pytest.MonkeyPatch.context() as patch:
        if POSTGRESQL:
            skip_unless_programs_fit(app)
        service = Service(app, tmp_path, patch)
        service.set(slug="bulwark")
        service.lose_all_data()
        service.prepare()
        yield service


def skip_unless_programs_fit(app: Flask) -> None:
    found = re.search(r"\) (\d+)", subprocess.getoutput("pg_dump --version"))
    with app.app_context(), db.engine.connect() as connection:
        server = int((connection.dialect.server_version_info or (0,))[0])
    if not found or int(found[1]) < server:
        pytest.skip(f"needs pg_dump of PostgreSQL {server} or later")


def names(*days: int) -> list[str]:
    """Return how the backups of the days after the first are called."""
    return [f"bulwark-{FIRST_DAY + timedelta(days=day):%Y%m%dT%H%M%SZ}" for day in days]


@contextmanager
def no_file_longer_than(size: int) -> Iterator[None]:
    """Fail whoever writes more, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def pieces_of(file: Path) -> tuple[bytes, list[bytes]]:
    """Return what a backup begins with, and its sealed chunks."""
    magic, line, rest = file.read_bytes().split(b"\n", 2)
    size = backups.CHUNK + backups.TAG
    chunks = [rest[at : at + size] for at in range(0, len(rest), size)]
    return magic + b"\n" + line + b"\n", chunks


def make_noise(service: Service) -> int:
    """Fill a table of SQLite, with an index; return the number of its first page."""
    service.execute("CREATE TABLE noise (value TEXT)")
    rows = ", ".join(f"('{random.randbytes(2000).hex()}')" for _ in range(50))
    service.execute(f"INSERT INTO noise VALUES {rows}")
    service.execute("CREATE INDEX short_noise ON noise (substr(value, 1, 5))")
    service.execute("VACUUM")
    query = "SELECT rootpage FROM sqlite_master WHERE name = 'noise'"
    ((root,),) = service.execute(query)
    return int(root)


def overwrite_page(database: Path, number: int) -> None:
    with database.open("r+b") as file:
        file.seek((number - 1) * 4096)
        file.write(os.urandom(4096))


# --- There and back ------------------------------------------------------------------


def test_a_restored_service_knows_its_people_their_factors_and_waiting_mail(
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


@on_sqlite
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


def test_both_commands_say_what_they_did(service: Service):
    done = service.run("backup", service.folder)
    (file,) = service.folder.iterdir()
    rows = sum(
        service.execute(f'SELECT count(*) FROM "{t}"')[0][0] for t in service.tables()
    )
    held = f"{len(service.tables())} tables, {rows} rows"
    assert done.stdout.startswith(
        f"Wrote {file}: {file.stat().st_size:,} bytes, {held}"
    )
    assert "does not contain them: keep a copy of env.production" in done.stdout
    assert "sys_backup_created" in done.stderr
    restored = service.run("restore", file, "--replace")
    assert restored.stdout.startswith(
        f"Restored {file}, made 2026-11-02T03:00:00+00:00"
    )
    assert held in restored.stdout
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
            begun = datetime.now(UTC)
            with service.app.app_context(), db.engine.begin() as connection:
                connection.execute(text("INSERT INTO pairs VALUES (1)"))
                connection.execute(text("INSERT INTO pairs VALUES (2)"))
            waits.append((datetime.now(UTC) - begun).total_seconds())

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


def test_nothing_else_is_left_behind(service: Service):
    file = service.backup()
    service.restore(file, "--replace")
    assert service.files() == [file.name]
    assert {p.name for p in service.file.parent.glob("*")} <= {service.file.name}


# --- What a restore refuses ----------------------------------------------------------


def test_a_bit_that_flipped_is_found_wherever_it_is(
    service: Service, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(backups, "CHUNK", 512)
    file = service.backup()
    service.lose_all_data()
    whole = file.read_bytes()
    start, chunks = pieces_of(file)
    assert len(chunks) > 5
    edges = [len(start) + sum(map(len, chunks[:n])) for n in range(len(chunks))]
    positions = {
        *range(0, len(start), 5),
        *(edge + near for edge in edges for near in (-16, -1, 0)),
        *random.sample(range(len(whole)), 40),
    }
    for position in positions:
        damaged = bytearray(whole)
        damaged[position] ^= 1 << random.randrange(8)
        file.write_bytes(damaged)
        assert service.refuses("restore", file), position
    assert service.tables() == []
    file.write_bytes(whole)
    service.restore(file)


def test_a_file_that_was_cut_or_put_together_anew_is_refused(
    service: Service, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(backups, "CHUNK", 512)
    file, other = service.backup(), service.backup()
    service.lose_all_data()
    start, chunks = pieces_of(file)
    other_start, other_chunks = pieces_of(other)
    first, second, *rest = chunks
    wrong = [
        *([start, *chunks[:number]] for number in range(len(chunks))),
        [start, *chunks[:-1], chunks[-1][:-1]],
        [start, *chunks, b"\0"],
        [start, *chunks, chunks[-1]],
        [start, second, first, *rest],
        [start, first, *rest],
        [start, first, first, second, *rest],
        [start, other_chunks[0], second, *rest],
        [other_start, *chunks],
    ]
    for parts in wrong:
        file.write_bytes(b"".join(parts))
        assert "is damaged or cut short" in service.refuses("restore", file)
    for size in (0, 10, len(start) - 5):
        file.write_bytes(start[:size])
        assert service.refuses("restore", file)
    file.write_bytes(backups.MAGIC + b"[" * 9000)
    assert "is damaged or cut short" in service.refuses("restore", file)
    assert service.tables() == []


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"encryption_keys": {"testing": NEW_KEY}}, "Its id is 'testing'. Add it"),
        ({"slug": "other"}, "belongs to the service 'bulwark'"),
    ],
)
def test_a_backup_of_other_keys_or_another_service_is_refused(
    service: Service, settings: dict[str, Any], said: str
):
    file = service.backup()
    before = service.execute("SELECT * FROM roles")
    service.set(**settings)
    assert said in service.refuses("restore", file, "--replace")
    assert service.execute("SELECT * FROM roles") == before


def test_what_is_no_backup_is_refused(service: Service, tmp_path: Path):
    file = tmp_path / "letter.backup"
    for content in (
        b"",
        b"Dear all,\n",
        os.urandom(5000),
        b"bulwark backup, version 2\n",
    ):
        file.write_bytes(content)
        said = service.refuses("restore", file, "--replace")
        assert "is not a backup that this release can read" in said


def test_old_backups_open_while_their_key_is_still_listed(service: Service):
    service.set(encryption_keys={"1": OLD_KEY})
    old = service.backup()
    service.set(encryption_keys={"2": NEW_KEY, "1": OLD_KEY})
    new = service.backup()
    service.restore(old, "--replace")
    service.set(encryption_keys={"2": NEW_KEY})
    service.restore(new, "--replace")
    assert "Its id is '1'" in service.refuses("restore", old, "--replace")


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


def test_data_is_replaced_only_when_one_says_so(service: Service):
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
        said = service.refuses("restore", file, "--replace")
    assert "Stop the service" in said
    service.restore(file, "--replace")


@on_sqlite
def test_a_corrupt_database_can_be_replaced(service: Service):
    file, roles = service.backup(), service.execute("SELECT * FROM roles")
    service.file.write_bytes(os.urandom(8192))
    assert "add --replace" in service.refuses("restore", file)
    service.restore(file, "--replace")
    assert roles
    assert service.execute("SELECT * FROM roles") == roles


@on_sqlite
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


@on_sqlite
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
        patch.setattr(backups, "_sync", spoil)
        assert "corrupt" in service.refuses("restore", file, "--replace")
    assert "later" in service.tables()


@on_sqlite
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_the_data_is_not_restored_for_somebody_else(service: Service):
    file = service.backup()
    os.chown(service.file.parent, 12345, 12345)
    assert "Run this as the owner" in service.refuses("restore", file, "--replace")


# --- Bad days of a backup ------------------------------------------------------------


def test_the_oldest_go_and_nothing_else_does(service: Service):
    service.folder.mkdir()
    others = [
        "bulwark-20200101T000000Z.backup.old",
        "bulwark-before-the-move.backup",
        "bulwark-shop-20200101T000000Z.backup",
        "notes.txt",
    ]
    for name in others:
        (service.folder / name).write_text("mine")
    for _ in range(4):
        service.backup("--keep", "2")
    kept = [f"{name}.backup" for name in names(3, 4)]
    assert service.files() == sorted([*others, *kept])


def test_a_clock_that_was_wrong_does_not_cost_the_newest(service: Service):
    service.folder.mkdir()
    future = [service.folder / f"bulwark-2099010{n}T000000Z.backup" for n in (1, 2, 3)]
    for path in future:
        path.write_text("of a wrong clock")
    new = service.backup("--keep", "2")
    assert service.files() == [new.name, future[-1].name]


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
        patch.setattr(backups, "_create", lambda _: os.fdopen(full, "wb"))
        said = service.refuses("backup", service.folder, "--keep", "1")
    assert "No space left on device" in said
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
        patch.setattr(backups, "_sync", unreliable)  # a disk that changes a bit
        assert "damaged" in service.refuses("backup", service.folder, "--keep", "1")
    assert service.files() == [older.name]


@on_sqlite
def test_a_corrupt_database_costs_no_older_backup(service: Service):
    root = make_noise(service)
    older = service.backup()
    overwrite_page(service.file, root)
    assert service.refuses("backup", service.folder, "--keep", "1")
    assert service.files() == [older.name]


def test_a_service_without_data_has_no_backup(service: Service):
    service.lose_all_data()
    assert "Run `flask prepare` first" in service.refuses("backup", service.folder)
    service.execute("CREATE TABLE strange (number INTEGER)")
    assert "Run `flask prepare` first" in service.refuses("backup", service.folder)
    if not POSTGRESQL:
        service.set(database_url="sqlite://")
        assert "is in memory" in service.refuses("backup", service.folder)
    assert service.files() == []


def test_two_backups_do_not_run_at_once(
    service: Service, monkeypatch: pytest.MonkeyPatch
):
    said = list[str]()
    write = backups._write

    def write_slowly(path: Path, made: str) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(backups, "_write", write)
            said.append(service.refuses("backup", service.folder))
        write(path, made)

    monkeypatch.setattr(backups, "_write", write_slowly)
    file = service.backup()
    assert "Another command is using" in said[0]
    assert service.files() == [file.name]


def kill(service: Service, within: str, *arguments: str | Path) -> None:
    """Run a command in a process of its own, and kill it inside a function."""
    code = f"""
import sys, time
from bulwark.ops import backups
def halt(*_, **__):
    print("now", flush=True)
    time.sleep(600)
backups.{within} = halt
from wsgi import app
app.cli.main(sys.argv[1:])
"""
    with service.app.app_context():
        config = settings.current()
    own = {
        "APP_DATABASE_URL": config.database_url,
        "APP_SLUG": config.slug,
        "FLASK_SKIP_DOTENV": "1",
    }
    with subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        env=os.environ | own,
        stdout=subprocess.PIPE,
    ) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == b"now\n"
        finally:
            process.kill()


def test_a_backup_that_is_killed_leaves_nothing_that_counts(service: Service):
    older = service.backup()
    kill(service, "_verify", "backup", service.folder)
    assert [path.name for path in service.folder.rglob("*.backup")] == [older.name]
    new = service.backup()
    assert service.files() == [older.name, new.name]


@on_sqlite
def test_a_restore_that_is_killed_leaves_the_data_as_it_was(service: Service):
    file = service.backup()
    service.execute("CREATE TABLE later (number INTEGER)")
    kill(service, "_compare", "restore", file, "--replace")
    assert "later" in service.tables()
    service.restore(file, "--replace")
    assert "later" not in service.tables()
    assert [path.name for path in service.file.parent.iterdir()] == [service.file.name]


# --- PostgreSQL's programs -----------------------------------------------------------


@pytest.fixture
def instead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Put a shell script in front of a program; `real` runs that."""
    folder, path = tmp_path / "bin", os.environ["PATH"]
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{path}")

    def instead(program: str, script: str) -> None:
        real = f'real() {{ {shutil.which(program, path=path)} "$@"; }}'
        (folder / program).write_text(f"#!/bin/sh\n{real}\n{script}\n")
        (folder / program).chmod(0o755)

    return instead


@on_postgresql
def test_a_restore_that_fails_midway_leaves_the_data_as_it_was(
    service: Service, instead: Callable[..., None]
):
    file = service.backup()
    roles = service.execute("SELECT * FROM roles")
    service.execute("CREATE TABLE later (number INTEGER)")
    for ending in ("head -n 90; exit 1", "sed 's/^ALTER TABLE/ALTAR TABLE/'"):
        instead("pg_restore", f'real "$@" | {ending}')
        said = service.refuses("restore", file, "--replace")
        assert "The data is unchanged" in said
        assert "later" in service.tables()
        assert service.execute("SELECT * FROM roles") == roles


@on_postgresql
def test_programs_newer_than_the_server_do(
    service: Service, instead: Callable[..., None]
):
    file = service.backup()
    # What pg_restore says since version 17, and no server before knows.
    instead("pg_restore", 'echo "SET transaction_timeout = 0;"; real "$@"')
    service.restore(file, "--replace")


@on_postgresql
def test_programs_that_are_missing_or_too_old_are_named(
    service: Service, instead: Callable[..., None], monkeypatch: pytest.MonkeyPatch
):
    file = service.backup()
    instead("pg_dump", "exit 1")
    assert "It must not be older than the server" in service.refuses(
        "backup", service.folder
    )
    monkeypatch.setenv("PATH", "/nowhere")
    assert "pg_dump is not installed" in service.refuses("backup", service.folder)
    assert "psql is not installed" in service.refuses("restore", file, "--replace")
    assert service.files() == [file.name]


@on_postgresql
def test_no_command_line_holds_the_password(
    service: Service, instead: Callable[..., None], tmp_path: Path
):
    with service.app.app_context():
        url = database_url(settings.current())
    url = url.set(password=url.password or "canary")
    service.set(database_url=url.render_as_string(hide_password=False))
    for program in ("pg_dump", "pg_restore", "psql"):
        line = f'echo "{program} $@" >> {tmp_path}/lines'
        given = f'echo "$PGPASSWORD" >> {tmp_path}/{program}'
        instead(program, f'{line}; {given}; real "$@"')
    service.restore(service.backup(), "--replace")
    lines = (tmp_path / "lines").read_text()
    assert all(program in lines for program in ("pg_dump", "pg_restore", "psql"))
    assert str(url.password) not in lines
    for program in ("pg_dump", "psql"):
        assert (tmp_path / program).read_text() == f"{url.password}\n"
