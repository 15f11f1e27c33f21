"""docs/api.md, done to a new service as a reader would."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fuzzing import attack
from tests.support.guide import Service, changing_its_own_files, copy_of
from tests.support.servers import Postgres

TASKS = """
from tests.conftest import add_person
from tests.support import bearer, make_token

TASK = {"title": "Buy milk"}


def headers(app, email, *permissions):
    return bearer(make_token(app, email, *permissions))


def test_users_without_a_role_keep_their_own_tasks(app, visitor, person):
    both = ("tasks:read", "tasks:write")
    mine = headers(app, person, *both)
    hers = headers(app, add_person(app, "ada@example.org"), *both)
    call = visitor.client.open
    added = call("/api/v1/tasks", method="POST", json=TASK, headers=mine)
    assert (added.status_code, added.get_json()["title"]) == (201, "Buy milk")
    path = f"/api/v1/tasks/{added.get_json()['id']}"
    assert call(path, headers=hers).status_code == 404
    assert call(path, method="DELETE", headers=hers).status_code == 404
    done = TASK | {"done": True}
    assert call(path, method="PUT", json=done, headers=mine).status_code == 200
    refused = call(path, method="PUT", json=TASK, headers=mine)
    assert (refused.status_code, refused.get_json()["detail"]) == (
        409,
        "The task is done.",
    )
    assert call(path, method="DELETE", headers=mine).status_code == 204
    assert call(path, headers=mine).status_code == 404


def test_a_token_that_reads_does_not_write(app, visitor, person):
    sent = headers(app, person, "tasks:read")
    answer = visitor.client.post("/api/v1/tasks", json=TASK, headers=sent)
    assert answer.status_code == 403


def test_an_error_is_a_problem(app, visitor, person):
    answer = visitor.get("/api/v1/tasks/1", headers={"Accept": "text/html"})
    assert (answer.status_code, answer.mimetype) == (401, "application/problem+json")
"""
# What the base's own tests check of each route of a service.
SHIPPED = (
    *("api", "test_facade.py", "web/test_access.py", "web/test_access_matrix.py"),
    *("web/test_hostile.py", "account/test_tokens.py", "identity/test_tokens.py"),
)

PERMISSIONS = ("tasks:read", "tasks:write")


@pytest.fixture(scope="module")
def team(ready: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Return a service whose team followed the guide in its own files only."""
    service = copy_of(ready, tmp_path_factory.mktemp("api") / "service", "api.md")
    with changing_its_own_files(service):
        service.follow(*range(1, len(service.examples)))
        yield service


def test_a_team_builds_an_api_and_every_check_passes(team: Service) -> None:
    team.is_fully_migrated()
    for check in ("ruff format --check", "ruff check", "mypy", "lint-imports"):
        team.run("sh", "-c", f".venv/bin/{check}")
    team.proves(TASKS)
    team.run("bin/test", "-q", "-n0", *(f"tests/bulwark/{name}" for name in SHIPPED))


def test_schemathesis_finds_nothing(team: Service) -> None:
    attack(team, *PERMISSIONS)


@pytest.mark.needs("postgresql")
def test_schemathesis_finds_nothing_on_postgresql(
    team: Service, postgres: Postgres
) -> None:
    attack(team, *PERMISSIONS, APP_DATABASE_URL=postgres.database())
