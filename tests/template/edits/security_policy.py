"""The team answers on the same day."""

from pathlib import Path

from tests.template.edits import replace

OWNER = "template"


def edit(service: Path) -> None:
    replace(service / "SECURITY.md", "within three working\ndays", "on the same\nday")
