"""The team lets larger bodies in."""

from pathlib import Path

from tests.template.edits import replace

OWNER = "template"


def edit(service: Path) -> None:
    replace(
        service / "bulwark/web/input_validation.py",
        "= 1024 * 1024",
        "= 8 * 1024 * 1024",
    )
