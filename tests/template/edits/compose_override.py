"""The team's containers have a zone."""

from pathlib import Path

from tests.template.edits import write

OWNER = "team"
OVERRIDE = """\
services:
  web:
    environment:
      TZ: Europe/Vienna
"""


def edit(service: Path) -> None:
    write(service / "compose.override.yaml", OVERRIDE)
