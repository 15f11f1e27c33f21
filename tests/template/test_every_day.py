"""docs/every_day.md, done to a new service as a reader would, and `flask new`."""

import re
from pathlib import Path

import pytest

from tests.support.guide import Service, changing_its_own_files, copy_of
from tests.support.servers import Postgres

CHECKS = ("ruff format --check", "ruff check", "mypy", "lint-imports")
SHIPPED = (
    *("database/test_migrations.py", "test_facade.py", "test_names.py"),
    *("web/test_access.py", "web/test_access_matrix.py", "web/test_hostile.py"),
)
FIELDS = (
    *("title", "author:string?", "pages:integer", "read:boolean", "bought:date"),
    *("sold:date?", "notes:text?", "count:integer?"),
)
PAGES = """
from tests.conftest import Visitor


def test_a_page_that_no_list_has_is_not_there(visitor: Visitor, person: str):
    visitor.sign_in(person)
    for number in (2**31, 2, 0, -1):
        assert visitor.get(f"/books/?page={number}").status_code == 404
    assert visitor.get(f"/books/?page={10**19}").status_code == 400


def test_what_a_form_refuses_is_shown_beside_its_field(visitor: Visitor, person: str):
    visitor.sign_in(person)
    form = {"title": "  ", "pages": "2147483648", "bought": "tomorrow"}
    page = visitor.submit("/books/new", form).text
    assert "Enter the title." in page
    assert 'aria-describedby="pages-note"' in page
    assert 'value="tomorrow"' in page
"""


@pytest.fixture
def service(ready: Path, tmp_path: Path) -> Service:
    """Return a service that declares pydantic, as docs/api.md says."""
    service = copy_of(ready, tmp_path / "service", "every_day.md")
    file = service.folder / "pyproject.toml"
    needed = 'dependencies = [\n  "pydantic>=2.12",\n'
    file.write_text(file.read_text().replace("dependencies = [\n", needed, 1))
    return service


def files_of(service: Service) -> dict[str, bytes]:
    """Return what a command might have written."""
    return {
        str(path.relative_to(service.folder)): path.read_bytes()
        for folder in ("app", "tests/app", "bulwark")
        for path in (service.folder / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def failure(service: Service, *words: str) -> str:
    """Return the output of `flask new` when a step of it fails."""
    with pytest.raises(AssertionError) as failed:
        service.run("bin/flask", "new", *words)
    return str(failed.value)


def test_new_models_pass_every_check_directly_afterwards(service: Service) -> None:
    with changing_its_own_files(service):
        for name, *fields in (
            ("book", *FIELDS),
            ("person", "--plural", "people", "name", "born:date?"),
            ("order_item_with_long_name1", "a_field_with_the_longest_1:text?"),
            ("note", "--no-api", "text:text"),
        ):
            shown = service.run("bin/flask", "new", name, *fields)
            assert "Start bin/dev" in shown
            for check in CHECKS:
                service.run("sh", "-c", f".venv/bin/{check}")
            assert "No new upgrade" in service.run("bin/flask", "db", "check")
        service.proves(PAGES)
        paths = [f"tests/bulwark/{name}" for name in SHIPPED]
        service.run("bin/test", "-q", "-n0", *paths)


def test_a_refused_name_writes_nothing(service: Service) -> None:
    service.run("bin/flask", "new", "book", "title")
    before = files_of(service)
    for reason, *words in (
        ("looks like a plural", "notes"),
        ("the table users exists", "user"),
        ("the table books exists", "book"),
        ("keyword of Python", "class"),
        ("Kinds are", "note", "text:words"),
        ("Two fields", "note", "text", "text"),
    ):
        refused = service.refusal("bin/flask", "new", *words)
        assert reason in refused
        assert "Nothing was written." in refused
    refused = service.refusal("bin/flask", "new", "note", APP_ENV="testing")
    assert "in development only" in refused
    assert files_of(service) == before


def test_a_step_that_fails_leaves_everything_as_it_was(service: Service) -> None:
    broken = service.folder / "app/migrations/0002_broken.py"
    text = (service.folder / "app/migrations/0001_app.py").read_text()
    broken.write_text(re.sub("app0001", "app0002", text).replace('("app",)', "None"))
    before = files_of(service)
    assert "bin/flask prepare" in service.refusal("bin/flask", "new", "note")
    assert files_of(service) == before
    broken.unlink()
    app = service.folder / "app/__init__.py"
    refuses = '    assert "notes" not in app.blueprints\n    return app\n'
    app.write_text(app.read_text().replace("    return app\n", refuses))
    before = files_of(service)
    assert "db migrate" in failure(service, "note")
    assert files_of(service) == before


def test_a_team_follows_the_chapter_and_every_check_passes(
    ready: Path, tmp_path: Path
) -> None:
    service = copy_of(ready, tmp_path / "service", "every_day.md")
    with changing_its_own_files(service):
        service.follow(*range(1, len(service.examples)))
        for check in CHECKS:
            service.run("sh", "-c", f".venv/bin/{check}")
        service.run("bin/test", "-q", "-n0", "tests/app")
    names = "print(Book.__name__, User.__name__, db.engine.name, select.__name__)"
    shown = service.run("sh", "-c", f"echo '{names}' | bin/flask shell")
    assert "Book User sqlite select" in shown
    reads = "import os, app; print(os.environ['APP_ENV'], app.__name__)"
    assert service.run("bin/python", "-c", reads) == "development app\n"


def test_reset_begins_again_with_the_seed(service: Service) -> None:
    seed = service.folder / "app/seed.py"
    refused = service.refusal("bin/seed")
    assert "There is no app/seed.py" in refused
    seed.write_text('"""Seed."""\n\ndef seed() -> None:\n    print("seeded")\n')
    service.run("bin/flask", "accounts", "invite", "zoe@example.org")
    shown = service.run("bin/reset")
    assert "Set the password of" in shown
    assert "seeded\nRan app/seed.py." in shown
    assert "zoe@" not in service.run("bin/flask", "accounts", "list")
    assert "No new upgrade" in service.run("bin/flask", "db", "check")
    assert "intact" in service.run("bin/flask", "audit", "verify")


def test_reset_refuses_production_and_other_machines(service: Service) -> None:
    production = {
        "APP_ENV": "production",
        "APP_MAIL_URL": "smtp://localhost",
        "APP_ALLOWED_HOSTS": "shop.internal",
    }
    for command in ("bin/reset", "bin/seed"):
        refused = service.refusal(command, **production)
        assert "this is for development; nothing was changed" in refused
    elsewhere = "postgresql://shop:secret@db.internal/shop"
    refused = service.refusal("bin/reset", APP_DATABASE_URL=elsewhere)
    assert "on another machine, db.internal; nothing was deleted" in refused


@pytest.mark.needs("postgresql")
def test_reset_works_on_postgresql(service: Service, postgres: Postgres) -> None:
    url = {"APP_DATABASE_URL": postgres.database()}
    service.run("bin/flask", "prepare", **url)
    service.run("bin/flask", "accounts", "invite", "zoe@example.org", **url)
    service.run("bin/reset", **url)
    assert "zoe@" not in service.run("bin/flask", "accounts", "list", **url)
    assert "No new upgrade" in service.run("bin/flask", "db", "check", **url)
