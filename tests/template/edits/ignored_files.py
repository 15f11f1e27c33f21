"""The team's tools make files that git shall not see."""

from pathlib import Path

from tests.template.edits import append

OWNER = "team"


def edit(service: Path) -> None:
    append(service / ".gitignore", "\n/node_modules/\n*.rej.bak\n")
