"""docs/jobs.md, done to a new service as a reader would."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.guide import Service, changing_its_own_files, copy_of
from tests.support.servers import Postgres

EXPORTS = """
from app import exports
from tests.conftest import add_person


def test_users_see_the_progress_of_their_own_exports(
    app, visitor, other_visitor, person, monkeypatch, run_jobs
):
    visitor.sign_in(person)
    other_visitor.sign_in(add_person(app, "ada@example.org"))
    path = visitor.submit("/exports/", {}).headers["Location"]
    page = visitor.get(path).text
    assert '<noscript><meta http-equiv="refresh"' in page
    monkeypatch.setattr(exports, "Export", None)  # the job fails after its progress
    run_jobs()
    monkeypatch.undo()
    assert other_visitor.get(path).status_code == 404
    assert other_visitor.get("/exports/").status_code == 200


def test_the_nightly_job_deletes_exports(app, visitor, person, run_jobs):
    visitor.sign_in(person)
    path = visitor.submit("/exports/", {}).headers["Location"]
    run_jobs()
    assert "Month 12" in visitor.get(path).text
    with app.app_context():
        exports.delete_exports.function()
    assert "Month 12" not in visitor.get(path).text
"""
# What the base's own tests check of each route, model and job of a service.
SHIPPED = (
    *("jobs", "test_facade.py", "web/test_access_matrix.py"),
    *("web/test_hostile.py", "database/test_migrations.py"),
)


@pytest.fixture
def team(ready: Path, tmp_path: Path) -> Iterator[Service]:
    """Return a service whose team follows the guide, and changes its own files only."""
    service = copy_of(ready, tmp_path / "service", "jobs.md")
    with changing_its_own_files(service):
        yield service


def test_a_team_exports_data_in_a_job_and_every_check_passes(team: Service) -> None:
    team.follow(*range(1, len(team.examples)))
    team.is_fully_migrated()
    for check in ("ruff format --check", "ruff check", "mypy", "lint-imports"):
        team.run("sh", "-c", f".venv/bin/{check}")
    team.proves(EXPORTS)
    team.run("bin/test", "-q", "-n0", *(f"tests/bulwark/{name}" for name in SHIPPED))


@pytest.mark.needs("postgresql")
def test_the_jobs_work_on_postgresql(team: Service) -> None:
    team.follow(*range(1, len(team.examples)))
    with Postgres() as postgres:
        url = postgres.database()
        team.keep(EXPORTS)
        paths = ("tests/app", "tests/bulwark/jobs")
        team.run("bin/test", "-q", "-n0", *paths, APP_DATABASE_URL=url)
