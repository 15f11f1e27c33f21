"""The team gives its project a name and counts versions."""

from pathlib import Path

from tests.template.edits import replace

OWNER = "team"


def edit(service: Path) -> None:
    project = service / "pyproject.toml"
    replace(
        project,
        'name = "service"\nversion = "0.1.0"',
        'name = "shop"\nversion = "2.7.1"',
    )
