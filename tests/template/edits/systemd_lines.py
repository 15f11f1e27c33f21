"""The team's service may talk to another host."""

from pathlib import Path

from tests.template.edits import replace

OWNER = "template"


def edit(service: Path) -> None:
    replace(
        service / "deploy/systemd/my-service@.service",
        "PrivateNetwork=yes",
        "PrivateNetwork=no",
    )
