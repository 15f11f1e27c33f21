"""The team wrote its own README."""

from pathlib import Path

OWNER = "team"


def edit(service: Path) -> None:
    (service / "README.md").write_text("# Shop\n\nWe sell things.\n")
