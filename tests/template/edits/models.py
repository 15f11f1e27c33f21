"""The team has invoices."""

from pathlib import Path

from tests.template.edits import append, migrate, replace

OWNER = "team"
BASE = "from bulwark import BaseUser\n"
IMPORTS = """\
from sqlalchemy import ForeignKey
from sqlalchemy import String as Text
from sqlalchemy.orm import Mapped, mapped_column

from bulwark import Model
"""
MODEL = '''

class Invoice(Model):
    """What somebody has to pay."""

    __tablename__ = "invoices"

    id: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[str] = mapped_column(Text(20), unique=True)
    customer_id: Mapped[int] = mapped_column(ForeignKey("users.id"), index=True)
'''
CHANGE = """\
op.create_table(
        "invoices",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("number", sa.String(20), nullable=False),
        sa.Column("customer_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["customer_id"], ["users.id"], name="fk_invoices_customer_id_users"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_invoices"),
        sa.UniqueConstraint("number", name="uq_invoices_number"),
    )
    op.create_index("ix_invoices_customer_id", "invoices", ["customer_id"])"""


def edit(service: Path) -> None:
    models = service / "app/models.py"
    replace(models, BASE, IMPORTS + BASE)
    append(models, MODEL)
    migrate(service, "invoices", CHANGE)
