"""Services for answers and Pythons of every kind: each starts and shows its name."""

import os
import shutil
import subprocess
import tomllib
from itertools import combinations, product
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.conftest import QUESTIONS, Make, git, run
from tests.support.environments import (
    PYTHONS,
    WHOLE,
    find_python,
    lend_packages,
    python_of,
)

if TYPE_CHECKING:
    from tests.support.servers import Postgres

SHELLS = (b"#!/bin/sh", b"#!/bin/bash", b"# shellcheck shell=")


class Row(NamedTuple):
    """One service of the matrix; the name is messy because names are."""

    python: str
    database: str
    ci: str
    deploy: list[str]
    name: str


# These are set up, start, and show and mail their names: no other test of a service
# differs by what CIs and servers read. Each Python and each database runs all tests
# once (tests/support/environments.py).
MAIL, FACTORS = (
    "tests/bulwark/mail/test_mail.py",
    "tests/bulwark/identity/security/test_second_factors.py",
)
SMOKE = (
    "tests/app",
    f"{MAIL}::test_an_email_has_a_text_and_a_page_made_from_it",
    f"{FACTORS}::test_an_app_is_added_once_it_shows_the_right_code",
    f"{FACTORS}::test_a_passkey_alone_signs_in",
)
# Python 3.12 and later measure lines at little cost, branches only from 3.14 on
# (https://coverage.readthedocs.io/en/latest/config.html#run-core). bin/ci of a service
# measures branches.
LINES_COVERED = """[run]
core = sysmon
source = bulwark
omit = {omitted}
[report]
fail_under = 95
"""
ROWS = [
    Row("3.11", "sqlite", "gitlab", ["systemd"], 'Café "Zoë" & Sons — billing'),
    Row("3.11", "postgresql", "gitlab", ["docker"], "O'Brien’s \\ Söhne"),
    Row("3.12", "sqlite", "github", [], "Привет, мир 🎉"),
    Row("3.12", "postgresql", "github", ["docker", "systemd"], "{{ 7*7 }} %n $HOME"),
    Row("3.13", "sqlite", "none", ["docker"], "<script>alert(1)</script>"),
    Row("3.13", "postgresql", "none", ["systemd"], "nginx"),
]


def features(row: Row) -> set[tuple[str, object]]:
    """Return what a row is an example of."""
    choices = QUESTIONS["deploy"]["choices"].values()
    return {
        ("python", row.python),
        ("database", row.database),
        ("ci", row.ci),
        *((choice, choice in row.deploy) for choice in choices),
    }


def test_the_whole_suite_runs_on_every_python_and_every_database() -> None:
    assert {python for python, _ in WHOLE.values()} == set(PYTHONS)
    databases = QUESTIONS["database"]["choices"].values()
    assert {database for _, database in WHOLE.values()} == set(databases)
    if missing := [python for python in PYTHONS if not find_python(python)]:
        pytest.skip(f"needs Python {' and '.join(missing)}")


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
def test_a_service_starts_and_shows_its_name(
    row: Row,
    make: Make,
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
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
    lend_packages(service, tmp_path_factory, python=python)
    run("bin/setup", cwd=service, env=environment)
    used = run(".venv/bin/python", "-V", cwd=service)
    assert used.startswith(f"Python {row.python}.")
    if row.database == "postgresql":
        server: Postgres = request.getfixturevalue("postgres")
        environment["APP_DATABASE_URL"] = server.database()
    run("bin/test", *SMOKE, cwd=service, env=environment)


def test_the_template_passes_every_check_as_it_lies(
    template: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    lies = shutil.copytree(template / "template", tmp_path / "template")
    python = python_of("as it lies")
    lend_packages(lies, tmp_path_factory, python=python)
    run("bin/setup", cwd=lies, env=os.environ | {"UV_PYTHON": python})
    environment = os.environ | {"PATH": f"{lies}/.venv/bin:{os.environ['PATH']}"}
    run("ruff", "format", "--check", cwd=lies, env=environment)
    run("ruff", "check", cwd=lies, env=environment)
    run("mypy", "--strict", cwd=lies, env=environment)
    scripts = [path.relative_to(lies) for path in lies.glob("deploy/**/*.py")]
    run("mypy", "--strict", *scripts, cwd=lies, env=environment)
    run("lint-imports", cwd=lies, env=environment)
    settings = tomllib.loads((lies / "pyproject.toml").read_text())
    omitted = ",".join(settings["tool"]["coverage"]["run"]["omit"])
    (tmp_path / "coverage.ini").write_text(LINES_COVERED.format(omitted=omitted))
    run(
        "bin/test",
        "--cov",
        f"--cov-config={tmp_path}/coverage.ini",
        cwd=lies,
        env=environment,
    )


def test_a_template_that_fails_makes_the_suite_red_and_hangs_nothing(
    make: Make, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Requests that wait for a hash meanwhile once kept the process from ending."""
    service = make("broken")
    lend_packages(service, tmp_path_factory)
    with (service / "app/templates/navigation.html").open("a") as file:
        file.write("{{ nope() }}\n")
    command = (
        "bin/test",
        "tests/bulwark/identity/test_throttling.py",
        "-q",
        "--tb=line",
    )
    done = subprocess.run(
        command, cwd=service, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 1, done.stderr
    assert "'nope' is undefined" in done.stdout


def test_an_audit_of_the_workflows_finds_nothing(template: Path) -> None:
    run("zizmor", "--offline", ".github", "template/.github", cwd=template)


def test_shellcheck_finds_nothing(template: Path) -> None:
    files = [template / line for line in git(template, "ls-files").splitlines()]
    scripts = [file for file in files if file.read_bytes().startswith(SHELLS)]
    assert {"new", "setup", "run"} <= {script.name for script in scripts}
    run("shellcheck", "-x", "-P", "SCRIPTDIR", *scripts, cwd=template)
