"""People have a phone number."""

from pathlib import Path

from tests.template.edits import migrate, replace

OWNER = "team"
BASE = "from bulwark import BaseUser\n"
IMPORTS = """\
from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

"""
LAST = """Add columns and relationships here.\"\"\"\n"""
COLUMN = "\n    phone: Mapped[str | None] = mapped_column(String(32))\n"
CHANGE = """\
with op.batch_alter_table("users") as users:
        users.add_column(sa.Column("phone", sa.String(32)))"""


def edit(service: Path) -> None:
    models = service / "app/models.py"
    replace(models, BASE, IMPORTS + BASE)
    replace(models, LAST, LAST + COLUMN)
    migrate(service, "phone", CHANGE)
