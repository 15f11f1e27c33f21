"""What `flask db migrate` writes of changed models works on SQLite and PostgreSQL."""

import enum
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import flask_migrate
import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import render_python_code
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.operations.ops import CreateTableOp, UpgradeOps
from alembic.util import CommandError
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import IntegrityError
from sqlalchemy.schema import CreateTable
from sqlalchemy.sql.elements import conv

from bulwark.database import NAMING, UTCDateTime, db, model_changes


class Status(enum.Enum):
    """Two states, as a team begins with."""

    open = "open"
    done = "done"


class LaterStatus(enum.Enum):
    """The same with two more, one of them between the others."""

    open = "open"
    cancelled = "cancelled"
    done = "done"
    quoted = "it's 100 %"


class Document(sa.TypeDecorator[Any]):
    """JSON, which PostgreSQL stores as JSONB."""

    impl = postgresql.JSONB
    cache_ok = True


class Words(sa.TypeDecorator[Any]):
    """A list, or JSON where there are none."""

    impl = sa.JSON
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> Any:
        if dialect.name == "postgresql":
            return dialect.type_descriptor(sa.ARRAY(sa.String(20)))
        return dialect.type_descriptor(sa.JSON())


class Code(sa.TypeDecorator[str]):
    """A short text."""

    impl = sa.String(10)
    cache_ok = True


def enum_column(members: type[enum.Enum] = Status, name: str = "status") -> Any:
    return sa.Column(
        name, sa.Enum(members, name="test_status", values_callable=values_of)
    )


def values_of(members: Any) -> list[str]:
    return [str(member.value) for member in members]


@contextmanager
def models(*tables: tuple[Any, ...]) -> Iterator[list[sa.Table]]:
    """Have models for a while; each has a number as its key."""
    made = [
        sa.Table(
            name, db.metadata, sa.Column("id", sa.Integer, primary_key=True), *rest
        )
        for name, *rest in tables
    ]
    try:
        yield made
    finally:
        for table in made:
            db.metadata.remove(table)


def migrate(alembic: Config, message: str = "models") -> None:
    """Write a migration, apply it, and compare the tables with the models."""
    flask_migrate.migrate(message=message)
    command.upgrade(alembic, "heads")
    command.check(alembic)


def written(dialect: str, *columns: Any) -> tuple[str, sa.Table]:
    """Return the migration that a developer with this database gets, and its table."""
    context = MigrationContext.configure(
        dialect_name=dialect, opts={"render_item": model_changes.render}
    )
    table = sa.Table("test_types", sa.MetaData(naming_convention=NAMING), *columns)
    code = render_python_code(
        UpgradeOps([CreateTableOp.from_table(table)]),
        render_item=model_changes.render,
        migration_context=context,
    )
    made: list[sa.Table] = []

    def create_table(name: str, *items: Any) -> None:
        made.append(sa.Table(name, sa.MetaData(), *items))

    operations = type("op", (), {"create_table": create_table, "f": str})
    exec(
        "\n".join(line.strip() for line in code.splitlines()),
        {"op": operations, "sa": sa, "postgresql": postgresql},
    )
    return code, made[0]


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
@pytest.mark.parametrize(
    ("column", "on_sqlite", "on_postgresql"),
    [
        (sa.Column("c", Words), "JSON", "VARCHAR(20)[]"),
        (sa.Column("c", Code), "VARCHAR(10)", "VARCHAR(10)"),
        (
            sa.Column("c", Code().with_variant(sa.Text(), "postgresql")),
            "VARCHAR(10)",
            "TEXT",
        ),
        (
            sa.Column("c", sa.JSON().with_variant(Document(), "postgresql")),
            "JSON",
            "JSONB",
        ),
        (
            sa.Column("c", sa.JSON().with_variant(sa.ARRAY(Code()), "postgresql")),
            "JSON",
            "VARCHAR(10)[]",
        ),
        (sa.Column("c", UTCDateTime), "DATETIME", "TIMESTAMP WITH TIME ZONE"),
        (
            sa.Column("c", sa.Boolean, server_default=sa.false()),
            "BOOLEAN DEFAULT 0",
            "BOOLEAN DEFAULT false",
        ),
        (
            sa.Column("c", sa.Boolean, server_default=sa.text("1")),
            "BOOLEAN DEFAULT 1",
            "BOOLEAN DEFAULT true",
        ),
        (
            sa.Column("c", sa.DateTime, server_default=sa.func.now()),
            "DATETIME DEFAULT CURRENT_TIMESTAMP",
            "TIMESTAMP WITHOUT TIME ZONE DEFAULT now()",
        ),
        (
            sa.Column("c", sa.String(9), server_default="it's"),
            "VARCHAR(9) DEFAULT 'it''s'",
            "VARCHAR(9) DEFAULT 'it''s'",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_column_is_written_for_both_databases(
    dialect: str, column: sa.Column[Any], on_sqlite: str, on_postgresql: str
) -> None:
    _, table = written(dialect, column._copy())
    for expected, name in ((on_sqlite, "sqlite"), (on_postgresql, "postgresql")):
        made = str(CreateTable(table).compile(dialect=_dialect(name)))
        default = made.partition("c ")[2].partition("\n")[0]
        assert default.replace("(CURRENT_TIMESTAMP)", "CURRENT_TIMESTAMP") == expected


def _dialect(name: str) -> sa.Dialect:
    return sa.create_mock_engine(f"{name}://", lambda *_: None).dialect


def test_a_default_that_only_one_database_takes_is_refused() -> None:
    default = sa.cast("1", sa.Uuid)
    with pytest.raises(CommandError, match=r"server_default of test_types\.c"):
        written("sqlite", sa.Column("c", sa.Uuid, server_default=default))


def test_constraints_with_one_first_column_have_names_of_their_own(
    alembic: Config,
) -> None:
    command.upgrade(alembic, "heads")
    text = sa.String(20)
    columns = ("tenant", "slug", "number")
    with models(
        (
            "test_plans",
            *(sa.Column(name, text) for name in columns),
            sa.UniqueConstraint("tenant", "slug"),
            sa.UniqueConstraint("tenant", "number"),
        ),
        (
            "test_orders",
            *(sa.Column(name, text) for name in columns),
            sa.ForeignKeyConstraint(
                ["tenant", "slug"], ["test_plans.tenant", "test_plans.slug"]
            ),
            sa.ForeignKeyConstraint(
                ["tenant", "number"], ["test_plans.tenant", "test_plans.number"]
            ),
            sa.Index(None, "slug", "tenant"),
            sa.Index(None, "slug", "number"),
        ),
    ):
        migrate(alembic)
        inspector = sa.inspect(db.engine)
        assert len(inspector.get_unique_constraints("test_plans")) == 2
        assert len(inspector.get_foreign_keys("test_orders")) == 2
        assert len(inspector.get_indexes("test_orders")) == 2


def test_existing_constraints_keep_their_names(
    alembic: Config, app_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command.upgrade(alembic, "heads")
    with db.engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TABLE test_plans (id INTEGER NOT NULL, tenant VARCHAR(20),"
            " slug VARCHAR(20), CONSTRAINT pk_test_plans PRIMARY KEY (id),"
            " CONSTRAINT uq_test_plans_tenant UNIQUE (tenant, slug))"
        )
        connection.exec_driver_sql(
            "CREATE INDEX ix_test_plans_slug ON test_plans (slug, tenant)"
        )
    columns = [sa.Column(name, sa.String(20)) for name in ("tenant", "slug")]
    unique, index = (
        sa.UniqueConstraint("tenant", "slug"),
        sa.Index(None, "slug", "tenant"),
    )
    with models(("test_plans", *columns, unique, index)):
        files = set(app_folder.glob("*.py"))
        command.check(alembic)
        flask_migrate.migrate(message="none")
        assert set(app_folder.glob("*.py")) == files
        assert "have not changed" in capsys.readouterr().out
    # Once the models drop it, it goes under the name that it has.
    columns = [sa.Column(name, sa.String(20)) for name in ("tenant", "slug")]
    with models(("test_plans", *columns)):
        migrate(alembic)
        inspector = sa.inspect(db.engine)
        assert not inspector.get_unique_constraints("test_plans")
        assert not inspector.get_indexes("test_plans")


def test_a_named_check_on_a_table_that_exists_is_migrated(alembic: Config) -> None:
    command.upgrade(alembic, "heads")
    with models(("test_plans", sa.Column("price", sa.Integer))):
        migrate(alembic, "plans")
    check = sa.CheckConstraint("price >= 0", name="positive")
    with models(("test_plans", sa.Column("price", sa.Integer), check)) as (plans,):
        migrate(alembic, "no negative price")
        with db.engine.begin() as connection, pytest.raises(IntegrityError):
            connection.execute(plans.insert().values(price=-1))


def test_an_enum_is_made_once_and_grows(alembic: Config) -> None:
    command.upgrade(alembic, "heads")
    with models(("test_plans", enum_column())):
        migrate(alembic, "plans")
    later = [enum_column(LaterStatus)]
    with models(
        ("test_plans", enum_column(LaterStatus), enum_column(LaterStatus, "before")),
        ("test_orders", *later),
    ) as tables:
        migrate(alembic, "orders")
        with db.engine.begin() as connection:
            for table in tables:
                for status in LaterStatus:
                    connection.execute(table.insert().values(status=status))
                stored = connection.scalars(sa.select(table.c.status)).all()
                assert list(stored) == list(LaterStatus)


def test_a_new_member_alone_needs_no_migration(alembic: Config) -> None:
    command.upgrade(alembic, "heads")
    with models(("test_plans", enum_column())):
        migrate(alembic, "plans")
    with models(("test_plans", enum_column(LaterStatus))) as (plans,):
        command.check(alembic)
        command.upgrade(alembic, "heads")
        with db.engine.begin() as connection:
            for status in reversed(LaterStatus):
                connection.execute(plans.insert().values(status=status))
            if db.engine.dialect.name == "postgresql":
                in_order = sa.select(plans.c.status).order_by(plans.c.status)
                assert list(connection.scalars(in_order)) == list(LaterStatus)


def checked(type_: Any, *members: Any) -> Any:
    return type_(*members, name="test_checked", create_constraint=True)


def test_an_enum_that_could_not_grow_is_refused() -> None:
    with pytest.raises(CommandError, match="'test_checked' has create_constraint"):
        written("sqlite", sa.Column("c", checked(sa.Enum, Status)))


@pytest.mark.parametrize("members", [(sa.Enum, Status), (sa.Boolean,)])
def test_the_check_of_a_type_is_no_change(
    alembic: Config, members: tuple[Any, ...]
) -> None:
    command.upgrade(alembic, "heads")
    with models(("test_plans", sa.Column("c", checked(*members)))) as (plans,):
        plans.create(db.engine)
        command.check(alembic)


def test_enums_of_one_name_get_the_members_of_both(alembic: Config) -> None:
    command.upgrade(alembic, "heads")
    with models(("test_plans", enum_column())) as (plans,):
        plans.create(db.engine)
    with models(
        ("test_plans", enum_column()), ("test_orders", enum_column(LaterStatus))
    ):
        command.upgrade(alembic, "heads")
        with db.engine.begin() as connection:
            connection.exec_driver_sql(
                "INSERT INTO test_plans (status) VALUES ('cancelled')"
            )


def test_text_becomes_an_enum(alembic: Config) -> None:
    command.upgrade(alembic, "heads")
    with models(("test_plans", sa.Column("status", sa.String(30)))) as (plans,):
        migrate(alembic, "plans")
        with db.engine.begin() as connection:
            connection.execute(plans.insert().values(status="done"))
    with models(("test_plans", enum_column())) as (plans,):
        migrate(alembic, "a status")
        with db.engine.connect() as connection:
            assert connection.scalar(sa.select(plans.c.status)) is Status.done


LONG = "x" * 64


def check(rule: str) -> sa.CheckConstraint:
    return sa.CheckConstraint(rule, name=conv("ck"))


@pytest.mark.parametrize(
    ("tables", "reason"),
    [
        (
            lambda: (
                [sa.UniqueConstraint("a", name="once")],
                [sa.UniqueConstraint("a", name="once")],
            ),
            "once",
        ),
        (
            lambda: ([sa.Index("once", "a"), sa.UniqueConstraint("a", name="once")],),
            "once",
        ),
        (lambda: ([sa.Index("test_1", "a")], []), "test_1"),
        (lambda: ([check("a > 0"), check("a > 1")],), "ck of test_0"),
        (lambda: ([sa.Index(LONG, "a")],), LONG),
        (lambda: ([enum_column()], [enum_column(LaterStatus)]), "test_status"),
    ],
    ids=["constraints", "an index", "a table", "checks", "a long one", "enums"],
)
def test_names_that_postgresql_refuses_are_refused(
    tables: Callable[[], tuple[list[Any], ...]], reason: str
) -> None:
    metadata = sa.MetaData(naming_convention=NAMING)
    for number, items in enumerate(tables()):
        sa.Table(f"test_{number}", metadata, sa.Column("a", sa.Integer), *items)
    with pytest.raises(CommandError, match=reason):
        model_changes.refuse_clashes(metadata, {"test_0"})
    model_changes.refuse_clashes(metadata, {"another"})


def test_a_migration_with_such_names_is_not_written(
    alembic: Config, app_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    command.upgrade(alembic, "heads")
    files = set(app_folder.glob("*.py"))
    with (
        models(
            ("test_plans", sa.Column("a", sa.Integer, unique=True)),
            ("test_orders", sa.Column("a", sa.Integer), sa.Index("test_plans", "a")),
        ),
        pytest.raises(SystemExit),
    ):
        flask_migrate.migrate(message="refused")
    assert "use a name for two things" in caplog.text
    assert set(app_folder.glob("*.py")) == files
