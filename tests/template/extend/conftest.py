"""A service that a team extends."""

import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.guide import Service


def files_of_the_template(folder: Path) -> dict[Path, bytes]:
    """Return what is not the team's, nor made by tools."""
    return {
        path.relative_to(folder): path.read_bytes()
        for pattern in (
            "bulwark/**/*",
            "deploy/**/*",
            "tests/bulwark/**/*",
            "bin/*",
            "*.py",
        )
        for path in folder.glob(pattern)
        if path.is_file() and "__pycache__" not in path.parts
    }


def settings_of_tools(folder: Path) -> dict[str, object]:
    content = tomllib.loads((folder / "pyproject.toml").read_text())
    del content["project"]["dependencies"]
    return content


@pytest.fixture
def service(ready: Path, tmp_path: Path) -> Service:
    """Return a service of this test's own; its packages are shared."""
    folder = tmp_path / "service"
    shutil.copytree(ready, folder, symlinks=True, ignore=lambda *_: [".venv"])
    (folder / ".venv").symlink_to(ready / ".venv")
    return Service(folder)


@pytest.fixture
def team(service: Service) -> Iterator[Service]:
    """Return a service whose team changes nothing but its own files."""
    before = files_of_the_template(service.folder), settings_of_tools(service.folder)
    yield service
    after = files_of_the_template(service.folder), settings_of_tools(service.folder)
    assert after == before
