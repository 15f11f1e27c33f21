"""The team shows a welcome of its own instead of the base's."""

from pathlib import Path

from tests.template.edits import write

OWNER = "team"


def edit(service: Path) -> None:
    write(service / "app/templates/bulwark/welcome.html", "<p>Ours.</p>\n")
