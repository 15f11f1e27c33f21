"""Migrations: those of a team on both databases, and later ones of the base."""

import re
from contextlib import closing
from pathlib import Path
from sqlite3 import connect

import pytest

from tests.support.guide import (
    USER,
    Service,
    changing_its_own_files,
    copy_of,
)


@pytest.fixture
def service(ready: Path, tmp_path: Path) -> Service:
    return copy_of(ready, tmp_path / "service")


ORDERS = """
import enum

from sqlalchemy import ARRAY, JSON, CheckConstraint, String, UniqueConstraint, false
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from bulwark import BaseUser, Model


class Status(enum.Enum):
    open = 1
    done = 2


class User(BaseUser):
    pass


class Order(Model):
    __tablename__ = "orders"
    __table_args__ = (
        UniqueConstraint("shop", "number"),
        UniqueConstraint("shop", "slug"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    shop: Mapped[int]
    number: Mapped[int]
    slug: Mapped[str] = mapped_column(String(20))
    status: Mapped[Status]
    paid: Mapped[bool] = mapped_column(server_default=false())
    notes: Mapped[dict[str, str]] = mapped_column(
        JSON().with_variant(JSONB, "postgresql")
    )
    words: Mapped[list[str]] = mapped_column(
        JSON().with_variant(ARRAY(String(9)), "postgresql")
    )
"""


LATER_ORDERS = [
    ("    done = 2", "    done = 2\n    cancelled = 3"),
    ("    pass", "    last: Mapped[Status | None]"),
    (
        '", "slug"),',
        '", "slug"),\n        CheckConstraint("number > 0", name="positive"),',
    ),
]


ORDER_OF_EACH_STATUS = """
from sqlalchemy import select, update

from app.models import Order, Status, User
from bulwark import db
from tests.conftest import add_person


def test_orders_are_kept(app):
    add_person(app, "zoe@example.org")
    with app.app_context():
        for number, status in enumerate(Status, 1):
            kept = {"notes": {"a": "b"}, "words": ["c"], "slug": str(number)}
            db.session.add(Order(shop=1, number=number, status=status, **kept))
        if hasattr(User, "last"):
            db.session.execute(update(User).values(last=Status.cancelled))
        db.session.commit()
        order = db.session.scalars(select(Order).order_by(Order.number)).first()
        assert (order.status, order.paid) == (Status.open, False)
        assert (order.notes, order.words) == ({"a": "b"}, ["c"])
"""


@pytest.mark.needs("postgresql")
def test_migrations_written_on_sqlite_work_on_postgresql(service: Service) -> None:
    models, later = service.folder / "app/models.py", ORDERS
    for old, new in LATER_ORDERS:
        later = later.replace(old, new)
    with changing_its_own_files(service):
        for text in (ORDERS, later):
            models.write_text(text)
            service.run("bin/flask", "db", "migrate", "-m", "orders")
            service.run("bin/flask", "prepare")
            service.run("bin/flask", "db", "check")
            service.proves(ORDER_OF_EACH_STATUS)
            service.run("bin/postgresql", "bin/flask", "db", "check")
            service.run("bin/postgresql", "bin/test", "-q", "-n0", "tests/app")


LATER_MIGRATION_OF_THE_BASE = """
import sqlalchemy as sa
from alembic import op

revision = "bulwark_later"
down_revision = "{head}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("users") as users:
        users.add_column(sa.Column("later", sa.String(12)))
        users.create_unique_constraint("uq_users_later", ["later"])
"""


def test_a_later_migration_of_the_base_keeps_what_the_team_added(
    service: Service,
) -> None:
    service.follow(USER)
    versions = service.folder / "bulwark/migrations/versions"
    newest = max(versions.glob("*.py")).read_text()
    (head,) = re.findall(r'^revision = "(\w+)"', newest, re.MULTILINE)
    later = LATER_MIGRATION_OF_THE_BASE.format(head=head)

    with closing(connect(service.folder / "instance/development.db")) as database:
        database.execute("INSERT INTO companies VALUES (1, 'Acme')")
        database.execute("UPDATE users SET phone = '112', company_id = 1")
        database.commit()
        (versions / "9999_later.py").write_text(later)
        service.run("bin/flask", "prepare")
        found = database.execute(
            "SELECT phone, companies.name, count(role_id), later FROM users"
            " JOIN companies ON companies.id = company_id"
            " JOIN users_roles ON users.id = user_id"
        ).fetchall()
    assert found == [("112", "Acme", 1, None)]
