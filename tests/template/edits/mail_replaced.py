"""The team invites people in its own words."""

from pathlib import Path

from tests.template.edits import write

OWNER = "team"
MAIL = """\
Welcome to {{ service.name }}, {{ user.email }}!

Choose a password within {{ hours }} h: {{ link }}

Later: {{ later }}
"""


def edit(service: Path) -> None:
    write(service / "app/templates/security/email/invitation.txt", MAIL)
