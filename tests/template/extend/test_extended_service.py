"""A service with all examples, and what else teams ordinarily write."""

import re
from contextlib import closing
from sqlite3 import connect

import pytest

from tests.support.environments import python_of
from tests.support.guide import (
    USER,
    Service,
    merge,
)
from tests.support.proofs import PROOFS
from tests.support.servers import Postgres

ORDINARY = {
    "app/settings.py": """
from bulwark import setting, whole_number

@dataclass(frozen=True, kw_only=True)
class Settings:
    \"\"\"Your settings, each read from APP_<NAME>.\"\"\"

    stripe_key: str = setting("the key of the payments", required=True, secret=True)
    seats: int = setting(
        "how many there are", default=None, cast=whole_number(1, 9), required=True
    )

CSP_SOURCES: dict[str, list[str]] = {
    "connect-src": ["https://api.stripe.com", "wss://*.pusher.com"],
    "form-action": ["https://checkout.stripe.com"],
    "frame-src": ["https://js.stripe.com"],
    "img-src": ["https://*.tile.openstreetmap.org"],
    "script-src": ["https://js.stripe.com"],
    "style-src": ["https://fonts.example.com"],
}
""",
    "app/views.py": """
import nh3
from markupsafe import Markup

@blueprint.app_template_filter()
def rich(text: str) -> Markup:
    \"\"\"Let formatting through, and nothing else.\"\"\"
    return Markup(nh3.clean(text))
""",
}


RICH_TEXT = """
from flask import render_template_string


def test_formatting_is_shown_and_scripts_are_not(app):
    text = "<b>bold</b><script>alert()</script>"
    with app.app_context():
        assert render_template_string("{{ text | rich }}", text=text) == "<b>bold</b>"
"""


def test_what_teams_ordinarily_declare_leaves_every_check_green(team: Service) -> None:
    for file, added in ORDINARY.items():
        path = team.folder / file
        path.write_text(merge(path.read_text(), added))
    team.run(".venv/bin/ruff", "check", "--select=I", "--fix", "--quiet", "app")
    team.run(".venv/bin/ruff", "format", "--quiet", "app")
    for check in ("ruff check", "mypy"):
        team.run("sh", "-c", f".venv/bin/{check}")
    team.keep(RICH_TEXT)
    names = ("settings", "test_service.py", "web/test_headers.py", "web/test_paths.py")
    paths = ("tests/app", *(f"tests/bulwark/{name}" for name in names))
    team.run("bin/test", "-q", "-n0", *paths)


def test_a_service_with_all_of_it_passes_every_check(team: Service) -> None:
    team.follow(*range(1, 12))
    team.is_fully_migrated()
    for check in ("ruff format --check", "ruff check", "mypy", "lint-imports"):
        team.run("sh", "-c", f".venv/bin/{check}")
    team.proves(*PROOFS)


@pytest.mark.needs("postgresql")
def test_a_service_with_all_of_it_passes_all_tests_on_postgresql(
    team: Service, postgres: Postgres
) -> None:
    team.has_python(python_of("with all examples"))
    team.follow(*range(1, 12))
    team.keep("\n".join(PROOFS))
    url = postgres.database()
    team.run("bin/flask", "prepare", APP_DATABASE_URL=url)
    team.run("bin/test", APP_DATABASE_URL=url)


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
def test_migrations_written_on_sqlite_work_on_postgresql(team: Service) -> None:
    models, later = team.folder / "app/models.py", ORDERS
    for old, new in LATER_ORDERS:
        later = later.replace(old, new)
    for text in (ORDERS, later):
        models.write_text(text)
        team.run("bin/flask", "db", "migrate", "-m", "orders")
        team.run("bin/flask", "prepare")
        team.run("bin/flask", "db", "check")
        team.proves(ORDER_OF_EACH_STATUS)
        team.run("bin/postgresql", "bin/flask", "db", "check")
        team.run("bin/postgresql", "bin/test", "-q", "-n0", "tests/app")


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
