"""The team names files in its own language, with blanks."""

from pathlib import Path

from tests.template.edits import write

OWNER = "team"


def edit(service: Path) -> None:
    write(service / "app/static/grüße an alle.txt", "Grüße\n")
    write(service / "docs/使い方.md", "# 使い方\n")
