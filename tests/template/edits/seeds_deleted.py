"""The team deleted what it does not need of its half."""

from pathlib import Path

from tests.template.edits import write

OWNER = "team"


def edit(service: Path) -> None:
    (service / "app/nginx/README.md").unlink(missing_ok=True)
    (service / "app/static/favicon.svg").unlink()
    write(service / "app/static/favicon.svg", "<svg/>")
