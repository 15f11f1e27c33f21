"""Services that Copier writes and updates."""

import os
from pathlib import Path

from copier import run_update

from tests.conftest import git

SECRETS = {".env", ".env.production"}


def tree(folder: Path) -> dict[str, tuple[bytes, bool]]:
    """Return all files but git's and the secrets: content, and whether it runs."""
    return {
        str(file.relative_to(folder)): (file.read_bytes(), os.access(file, os.X_OK))
        for file in sorted(folder.rglob("*"))
        if file.is_file()
        and ".git" not in file.relative_to(folder).parts
        and file.name not in SECRETS
    }


def update(service: Path, **answers: object) -> None:
    run_update(service, answers, defaults=True, overwrite=True, quiet=True, unsafe=True)
    assert git(service, "ls-files", "--unmerged") == ""
