"""What teams do to their services: a module for each edit, found by being here.

A module describes in its docstring what the team did, and holds

    OWNER      whose files that are, "team" or "template"
    CONFLICTS  files in which a release of tests/support/releases.py changes those lines
    edit       what does it to a service, with files alone: nothing is installed

OWNER is "team" for what updates must never conflict with; there are no CONFLICTS then.
tests/template/test_updates.py makes each edit alone, and all in one service, by name.
"""

import re
from pathlib import Path

MIGRATION = '''\
"""{name}"""

import sqlalchemy as sa
from alembic import op

revision = "{name}"
down_revision = "{head}"
branch_labels = None
depends_on = "bulwark0002"


def upgrade() -> None:
    {change}


def downgrade() -> None:
    raise NotImplementedError
'''


def write(path: Path, content: str) -> None:
    """Make a file, and the folders that it needs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def replace(path: Path, old: str, new: str) -> None:
    """Change what is once in a file."""
    text = path.read_text()
    assert text.count(old) == 1, f"{old!r} is not once in {path}"
    path.write_text(text.replace(old, new))


def migrate(service: Path, name: str, change: str) -> None:
    """Add a migration after the app's newest."""
    newest = max((service / "app/migrations").glob("*.py"))
    (head,) = re.findall(r'^revision = "(\w+)"', newest.read_text(), re.MULTILINE)
    number = int(newest.name[:4]) + 1
    write(
        newest.with_name(f"{number:04}_{name}.py"),
        MIGRATION.format(name=name, head=head, change=change),
    )
