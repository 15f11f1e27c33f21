"""The team's image has one more library."""

from pathlib import Path

from tests.template.edits import replace

OWNER = "template"


def edit(service: Path) -> None:
    replace(service / "deploy/docker/Dockerfile", "zlib1g;", "zlib1g libmagic1;")
