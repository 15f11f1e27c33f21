"""The team gives the service more memory, beside the template's unit."""

from pathlib import Path

from tests.template.edits import write

OWNER = "team"


def edit(service: Path) -> None:
    folder = service / "deploy/systemd/my-service@.service.d"
    write(folder / "memory.conf", "[Service]\nMemoryMax=2G\n")
