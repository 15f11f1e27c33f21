"""The team deleted a slow test and a page of the documentation."""

from pathlib import Path

OWNER = "template"


def edit(service: Path) -> None:
    (service / "tests/bulwark/identity/test_enumeration.py").unlink()
    (service / "docs/extend.md").unlink()
