"""The team wrote a module whose name a later release seeds."""

from pathlib import Path

from tests.template.edits import write

OWNER = "team"


def edit(service: Path) -> None:
    write(service / "app/newer.py", '"""Is ours."""\n')
