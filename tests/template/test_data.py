"""The examples of docs/data.md, done to a new service as a reader would."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.guide import Service

COLUMN, INDEX = 1, 2

ENCRYPTED = """
from sqlalchemy import select, text

from app.models import Patient
from bulwark import db


def test_a_patient_is_readable_for_the_service_only(app):
    with app.app_context():
        db.session.add(Patient(number="A-42", diagnosis="influenza"))
        db.session.commit()
        assert db.session.scalars(select(Patient.diagnosis)).all() == ["influenza"]
        stored = text("SELECT number, diagnosis FROM patients")
        (number, diagnosis) = db.session.execute(stored).one()
        assert b"influenza" not in bytes(diagnosis)
        assert b"A-42" not in bytes(number)
"""

FOUND = """

def test_a_patient_is_found_by_number(app):
    with app.app_context():
        db.session.add(Patient(number="A-42", diagnosis="influenza"))
        db.session.commit()
        found = select(Patient).where(Patient.number_index == "a-42")
        assert db.session.scalars(found).one().number == "A-42"
"""


@pytest.fixture
def service(ready: Path, tmp_path: Path) -> Service:
    """Return a service of this test's own; its packages are shared."""
    folder = tmp_path / "service"
    shutil.copytree(ready, folder, symlinks=True, ignore=lambda *_: [".venv"])
    (folder / ".venv").symlink_to(ready / ".venv")
    return Service(folder, "data.md")


def test_a_team_encrypts_a_column_and_finds_rows_by_it(service: Service) -> None:
    service.follow(COLUMN)
    service.is_fully_migrated()
    service.proves(ENCRYPTED)
    service.follow(INDEX)
    service.is_fully_migrated()
    for check in ("ruff format --check app", "ruff check app", "mypy", "lint-imports"):
        service.run("sh", "-c", f".venv/bin/{check}")
    service.proves(ENCRYPTED, FOUND)


STORE = """
from app import create_app
from app.models import Patient
from bulwark import db
with create_app().app_context():
    db.session.add(Patient(number="A-42", diagnosis="influenza"))
    db.session.commit()
"""


def test_no_file_of_the_database_has_a_plain_value(service: Service) -> None:
    service.follow(COLUMN)
    service.python(STORE, APP_ENV="development")
    files = list((service.folder / "instance").glob("development.db*"))
    assert files
    for file in files:
        assert b"influenza" not in file.read_bytes()
    with closing(sqlite3.connect(service.folder / "instance/development.db")) as there:
        dump = "\n".join(there.iterdump())
    assert 'INSERT INTO "patients"' in dump
    for secret in ("influenza", b"influenza".hex().upper(), "A-42"):
        assert secret not in dump


@pytest.mark.needs("postgresql")
def test_the_migrations_work_on_postgresql(service: Service) -> None:
    service.follow(COLUMN, INDEX)
    service.keep(ENCRYPTED + FOUND)
    service.run("bin/postgresql", "bin/flask", "db", "check")
    service.run("bin/postgresql", "bin/test", "-q", "-n0", "tests/app")
