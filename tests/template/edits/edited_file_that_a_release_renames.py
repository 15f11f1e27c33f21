"""The team bans after fewer guesses."""

from pathlib import Path

from tests.template.edits import replace

OWNER = "template"


def edit(service: Path) -> None:
    replace(service / "deploy/fail2ban/jail.conf", "maxretry = 30\n", "maxretry = 12\n")
