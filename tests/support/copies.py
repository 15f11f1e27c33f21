"""Services that Copier writes and updates."""

import os
from collections.abc import Iterator
from pathlib import Path

from copier import run_update

from tests.conftest import git

SECRETS = {".env", ".env.production"}


def tree(folder: Path) -> dict[str, tuple[bytes, bool]]:
    """Return all files but git's and the secrets: content, and whether it runs."""
    return {
        str(file.relative_to(folder)): (file.read_bytes(), os.access(file, os.X_OK))
        for file in files(folder)
        if file.name not in SECRETS
    }


def files(folder: Path) -> Iterator[Path]:
    """Yield all files but git's."""
    for place, folders, names in os.walk(folder):
        if ".git" in folders:
            folders.remove(".git")
        paths = (Path(place, name) for name in names if name != ".git")
        yield from (path for path in paths if path.is_file())


def update(service: Path, **answers: object) -> None:
    run_update(service, answers, defaults=True, overwrite=True, quiet=True, unsafe=True)
    assert git(service, "ls-files", "--unmerged") == ""
