"""The team has its own colours."""

from pathlib import Path

from tests.template.edits import append

OWNER = "team"


def edit(service: Path) -> None:
    append(service / "app/static/app.css", "\nbody {\n  --pico-color: #123;\n}\n")
