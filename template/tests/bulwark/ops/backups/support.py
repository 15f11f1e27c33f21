"""What the tests of backups share."""

import os
import random
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from flask import Flask
from flask_migrate import upgrade
from sqlalchemy import NullPool, create_engine, inspect, make_url, text

from bulwark import settings
from bulwark.database import db
from bulwark.identity import roles
from bulwark.ops.backups import commands
from tests.conftest import ROOT

POSTGRESQL = os.environ.get("APP_DATABASE_URL", "").startswith("postgresql")
on_sqlite = pytest.mark.skipif(POSTGRESQL, reason="is about SQLite's files")
on_postgresql = pytest.mark.skipif(not POSTGRESQL, reason="is about PostgreSQL")
FIRST_DAY = datetime(2026, 11, 1, 3, tzinfo=UTC)


class Service:
    """The app on a database of the test's own, and its commands."""

    def __init__(self, app: Flask, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.app, self.patch = app, patch
        self.folder, self.file = folder / "backups", folder / "data/production.db"
        self.day = FIRST_DAY
        patch.setattr(commands, "utcnow", self.next_day)

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
            list(roles.make_roles())
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
        event = str(arguments[0]).replace("-", "_")
        assert f"sys_{event}_failed" in done.stderr
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


def kill(service: Service, function: str, *arguments: str | Path) -> None:
    """Run a command in a process of its own, and kill it inside a function."""
    code = f"""
import sys, time
from bulwark.ops.backups import archive, sqlite
def halt(*_, **__):
    print("now", flush=True)
    time.sleep(600)
{function} = halt
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
