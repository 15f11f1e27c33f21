"""The Pythons of services, and packages that are installed and compiled once a run."""

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import run
from tests.support.shared import made_once, shared_folder

PYTHONS = ["3.11", "3.12", "3.13"]
# Where a service's whole suite runs: once on each Python and each database.
WHOLE = {
    "as it lies": ("3.13", "sqlite"),  # test_matrix.py
    "with all examples": ("3.12", "postgresql"),  # test_extend.py
    "after ten updates": ("3.11", "sqlite"),  # test_updates.py
}


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


def python_of(run: str) -> str:
    """Return the Python of one of the runs above, or ours where there is none."""
    version, _ = WHOLE[run]
    return find_python(version) or sys.executable


def lend_packages(
    service: Path,
    factory: pytest.TempPathFactory,
    *groups: str,
    python: str | None = None,
) -> None:
    """Give a service a .venv that it shares; `groups` are options of `uv sync`.

    No service may install into it what others don't have.
    """
    named = ["packages", *groups, *([python.replace("/", "-")] if python else [])]

    def install(folder: Path) -> None:
        folder.mkdir()
        chosen = {"UV_PYTHON": python} if python else {}
        sync = (os.environ["UV"], "sync", "--quiet", *groups)
        run(*sync, cwd=service, env=os.environ | chosen)

    folder = shared_folder(factory) / "-".join(named)
    (service / ".venv").symlink_to(folder)
    made_once(folder, install)


def check_types(
    service: Path, factory: pytest.TempPathFactory, *arguments: str
) -> None:
    """Run a service's mypy; services share what it knows of packages and the base."""
    shared = shared_folder(factory)
    environment = os.environ | {"MYPY_CACHE_DIR": str(shared / "types")}
    with (shared / "types.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        run(".venv/bin/mypy", *arguments, cwd=service, env=environment)
