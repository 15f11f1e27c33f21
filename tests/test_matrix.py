"""Services for answers and Pythons of every kind: each passes its own tests."""

import os
import shutil
import subprocess
from itertools import combinations, product
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.conftest import QUESTIONS, Make, git, run

if TYPE_CHECKING:
    from tests.servers import Postgres

SHELLS = (b"#!/bin/sh", b"#!/bin/bash", b"# shellcheck shell=")
PYTHONS = ["3.11", "3.12", "3.13"]


class Row(NamedTuple):
    """One service of the matrix; the name is messy because names are."""

    python: str
    database: str
    ci: str
    deploy: list[str]
    name: str


ROWS = [
    Row("3.11", "sqlite", "gitlab", ["systemd"], 'Café "Zoë" & Sons — billing'),
    Row("3.11", "postgresql", "gitlab", ["docker"], "O'Brien’s \\ Söhne"),
    Row("3.12", "sqlite", "github", [], "Привет, мир 🎉"),
    Row("3.12", "postgresql", "github", ["docker", "systemd"], "{{ 7*7 }} %n $HOME"),
    Row("3.13", "sqlite", "none", ["docker"], "<script>alert(1)</script>"),
    Row("3.13", "postgresql", "none", ["systemd"], "nginx"),
]


def find_python(version: str) -> str | None:
    """Return one that runs: from PATH, from pyenv's folder, or one that uv knows."""
    known = subprocess.run(
        [os.environ["UV"], "python", "find", "--no-python-downloads", version],
        capture_output=True,
        text=True,
        check=False,
    )
    for candidate in (
        shutil.which(f"python{version}"),
        *map(str, Path.home().glob(f".pyenv/versions/{version}.*/bin/python")),
        known.stdout.strip(),
    ):
        if candidate and not subprocess.call(
            [candidate, "-c", "import ssl, sqlite3"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ):
            return candidate
    return None


def features(row: Row) -> set[tuple[str, object]]:
    """Return what a row is an example of."""
    choices = QUESTIONS["deploy"]["choices"].values()
    return {
        ("python", row.python),
        ("database", row.database),
        ("ci", row.ci),
        *((choice, choice in row.deploy) for choice in choices),
    }


def test_every_pair_of_answers_is_in_the_matrix() -> None:
    values = {
        "python": PYTHONS,
        "database": QUESTIONS["database"]["choices"].values(),
        "ci": QUESTIONS["ci"]["choices"].values(),
    } | dict.fromkeys(QUESTIONS["deploy"]["choices"].values(), (True, False))
    asked = {
        name
        for name, question in QUESTIONS.items()
        if "choices" in question and question.get("ask", True)
    }
    assert asked == {"database", "ci", "deploy"}
    for one, other in combinations(values, 2):
        if {one, other} == {"python", "ci"}:  # no Python reads the files of a CI
            continue
        for pair in product(values[one], values[other]):
            wanted = set(zip((one, other), pair, strict=True))
            assert any(wanted <= features(row) for row in ROWS), wanted


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(
            row,
            id=f"{row.python}-{row.database}",
            marks=[pytest.mark.needs("postgresql")] * (row.database == "postgresql"),
        )
        for row in ROWS
    ],
)
def test_a_service_passes_its_own_tests(
    row: Row, make: Make, request: pytest.FixtureRequest
) -> None:
    python = find_python(row.python)
    if not python:
        pytest.skip(f"needs Python {row.python}")
    service = make(
        "my sérvice",
        project_name=row.name,
        database=row.database,
        deploy=row.deploy,
        ci=row.ci,
    )
    environment = os.environ | {"UV_PYTHON": python}
    run("bin/setup", cwd=service, env=environment)
    used = run(".venv/bin/python", "-V", cwd=service)
    assert used.startswith(f"Python {row.python}.")
    if row.database == "postgresql":
        server: Postgres = request.getfixturevalue("postgres")
        environment["APP_DATABASE_URL"] = server.database()
    run("bin/test", cwd=service, env=environment)


def test_the_template_passes_every_check_as_it_lies(
    template: Path, tmp_path: Path
) -> None:
    lies = shutil.copytree(template / "template", tmp_path / "template")
    run("bin/setup", cwd=lies)
    environment = os.environ | {"PATH": f"{lies}/.venv/bin:{os.environ['PATH']}"}
    run("ruff", "format", "--check", cwd=lies, env=environment)
    run("ruff", "check", cwd=lies, env=environment)
    run("mypy", "--strict", cwd=lies, env=environment)
    scripts = [path.relative_to(lies) for path in lies.glob("deploy/**/*.py")]
    run("mypy", "--strict", *scripts, cwd=lies, env=environment)
    run("lint-imports", cwd=lies, env=environment)
    run("bin/test", "--cov", "--cov-report=term", cwd=lies, env=environment)


def test_an_audit_of_the_workflows_finds_nothing(template: Path) -> None:
    run("zizmor", "--offline", ".github", "template/.github", cwd=template)


def test_shellcheck_finds_nothing(template: Path) -> None:
    files = [template / line for line in git(template, "ls-files").splitlines()]
    scripts = [file for file in files if file.read_bytes().startswith(SHELLS)]
    assert {"new", "setup", "run"} <= {script.name for script in scripts}
    run("shellcheck", "-x", "-P", "SCRIPTDIR", *scripts, cwd=template)
