"""The team keeps a front end beside the app."""

from pathlib import Path

from tests.template.edits import write

OWNER = "team"


def edit(service: Path) -> None:
    write(service / "frontend/package.json", "{}\n")
    write(service / "frontend/src/[slug]/index.ts", "export {}\n")
