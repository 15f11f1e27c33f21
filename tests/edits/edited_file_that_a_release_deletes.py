"""The team lets its own robot past a rule."""

from pathlib import Path

from tests.edits import append

OWNER = "template"


def edit(service: Path) -> None:
    append(service / "deploy/nginx/crs/watch.conf", "\n# our robot may\n")
