"""The team bans who scans another of its services."""

from pathlib import Path

from tests.template.edits import write

OWNER = "team"


def edit(service: Path) -> None:
    write(service / "deploy/fail2ban/ours.conf", "[ours]\nmaxretry = 3\n")
