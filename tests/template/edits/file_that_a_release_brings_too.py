"""The team wrote a file whose name a release uses later."""

from pathlib import Path

from tests.template.edits import write

OWNER = "template"
CONFLICTS = ["docs/operations.md"]


def edit(service: Path) -> None:
    write(service / "docs/operations.md", "# Operations\n\nCall Zoe.\n")
