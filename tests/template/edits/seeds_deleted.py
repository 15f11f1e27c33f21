"""The team deleted what it does not need of its half, and settings of tools."""

import shutil
from pathlib import Path

from tests.template.edits import write

OWNER = "team"


def edit(service: Path) -> None:
    (service / "app/nginx/README.md").unlink(missing_ok=True)
    (service / "app/static/favicon.svg").unlink()
    write(service / "app/static/favicon.svg", "<svg/>")
    for folder in (".devcontainer", ".vscode"):
        shutil.rmtree(service / folder)
    for file in (".editorconfig", ".pre-commit-config.yaml", "AGENTS.md"):
        (service / file).unlink()
