"""The team configures a tool of its own."""

from pathlib import Path

from tests.template.edits import append

OWNER = "team"


def edit(service: Path) -> None:
    append(service / "pyproject.toml", "\n[tool.djlint]\nindent = 2\n")
