"""The team indents with tabs."""

from pathlib import Path

OWNER = "team"


def edit(service: Path) -> None:
    views = service / "app/views.py"
    views.write_text(views.read_text().replace("    ", "\t"))
