"""The team's CI builds its front end first."""

from pathlib import Path

from tests.template.edits import replace

OWNER = "template"
LAST = "      - run: bin/ci\n"


def edit(service: Path) -> None:
    replace(service / ".github/workflows/ci.yml", LAST, f"      - run: npm ci\n{LAST}")
