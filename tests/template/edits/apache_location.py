"""The team serves a file of its own with Apache."""

from pathlib import Path

from tests.template.edits import write

OWNER = "team"


def edit(service: Path) -> None:
    write(service / "app/apache/robots.conf", "ProxyPass /robots.txt !\n")
