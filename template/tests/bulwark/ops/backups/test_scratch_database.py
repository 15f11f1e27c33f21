"""PostgreSQL: the database of a drill, in which nothing else may be."""

import os
from collections.abc import Iterator

import pytest
from sqlalchemy import NullPool, create_engine, make_url, text
from sqlalchemy.engine import URL, Connection
from sqlalchemy.exc import OperationalError

from bulwark.ops.backups import scratch_database
from bulwark.ops.backups.contents import BackupError
from tests.bulwark.ops.backups.support import Service, on_postgresql

pytestmark = on_postgresql
ROLE = "bulwark_drill_tests"


@pytest.fixture
def live(service: Service) -> Iterator[Connection]:
    """A connection of a superuser; there is no scratch database before and after."""
    url = make_url(os.environ["APP_DATABASE_URL"]).set(drivername="postgresql+psycopg")
    engine = create_engine(
        url.set(database=f"{url.database}_backups"),
        isolation_level="AUTOCOMMIT",
        poolclass=NullPool,
    )
    with engine.connect() as connection:
        drop(connection)
        yield connection
        drop(connection)


def drop(live: Connection) -> None:
    live.execute(text(f'DROP DATABASE IF EXISTS "{name_of(live)}" WITH (FORCE)'))


def name_of(live: Connection) -> str:
    return f"{live.engine.url.database}_drill"


def create(live: Connection, *statements: str) -> None:
    """Create the scratch database, as an administrator, and run statements in it."""
    live.execute(text(f'CREATE DATABASE "{name_of(live)}" TEMPLATE template0'))
    in_scratch(live, *statements)


def in_scratch(live: Connection, *statements: str) -> int:
    """Run statements in the scratch database; return how many tables it has."""
    engine = create_engine(
        live.engine.url.set(database=name_of(live)),
        isolation_level="AUTOCOMMIT",
        poolclass=NullPool,
    )
    with engine.connect() as connection:
        for statement in statements:
            connection.execute(text(statement))
        query = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
        return int(connection.scalar(text(query)) or 0)


def exists(live: Connection) -> bool:
    query = text("SELECT 1 FROM pg_database WHERE datname = :name")
    return bool(live.scalar(query, {"name": name_of(live)}))


def refusal(service: Service) -> str:
    with (
        service.app.app_context(),
        pytest.raises(BackupError) as caught,
        scratch_database.scratch_database(),
    ):
        pytest.fail("it must be refused")
    return str(caught.value)


def fill(service: Service, live: Connection) -> URL:
    """Begin a drill, in the middle of which its data is there."""
    with service.app.app_context(), scratch_database.scratch_database() as url:
        in_scratch(live, "CREATE TABLE copies (number INTEGER)")
    return url


def test_a_created_database_is_dropped(service: Service, live: Connection):
    assert fill(service, live).database == name_of(live)
    assert not exists(live)


def test_an_existing_empty_database_is_emptied(service: Service, live: Connection):
    create(live)
    fill(service, live)
    assert in_scratch(live) == 0
    fill(service, live)


def test_what_killed_drills_left_is_deleted(service: Service, live: Connection):
    for mark, stays in (
        (scratch_database.CREATED, False),
        (scratch_database.FILLED, True),
    ):
        comment = f"COMMENT ON DATABASE \"{name_of(live)}\" IS '{mark}'"
        create(live, "CREATE TABLE copies (number INTEGER)", comment)
        fill(service, live)
        assert exists(live) == stays


@pytest.mark.parametrize(
    "statement",
    ["CREATE TABLE mine (number INTEGER)", "CREATE SEQUENCE mine"],
)
def test_data_of_others_is_never_deleted(
    service: Service, live: Connection, statement: str
):
    create(live, statement)
    assert "contains data that is not from a drill" in refusal(service)
    assert (
        in_scratch(
            live,
            statement.replace("CREATE", "ALTER").split(" (")[0]
            + " RENAME TO still_mine",
        )
        >= 0
    )


def test_data_that_came_after_a_drill_is_not_deleted(
    service: Service, live: Connection
):
    create(live)
    fill(service, live)
    in_scratch(live, "CREATE TABLE mine (number INTEGER)")
    assert "contains data that is not from a drill" in refusal(service)
    assert in_scratch(live) == 1


def test_an_option_of_the_url_does_not_lead_to_the_live_data(
    service: Service, live: Connection
):
    before = service.execute("SELECT * FROM roles")
    url = live.engine.url.update_query_dict({"dbname": str(live.engine.url.database)})
    service.set(database_url=url.render_as_string(hide_password=False))
    assert "remove the option `dbname`" in refusal(service)
    assert service.execute("SELECT * FROM roles") == before


def test_a_name_that_would_be_cut_is_refused(service: Service, live: Connection):
    name = "x" * (scratch_database.NAME_BYTES - 5)
    live.execute(text(f'DROP DATABASE IF EXISTS "{name}"'))
    live.execute(text(f'CREATE DATABASE "{name}"'))
    try:
        url = live.engine.url.set(database=name)
        service.set(database_url=url.render_as_string(hide_password=False))
        assert "too long" in refusal(service)
    finally:
        live.execute(text(f'DROP DATABASE "{name}"'))


@pytest.fixture
def modest(service: Service, live: Connection) -> Iterator[None]:
    """A role of the service that may not create databases."""
    live.execute(text(f"CREATE ROLE {ROLE} LOGIN PASSWORD '{ROLE}'"))
    url = live.engine.url.set(username=ROLE, password=ROLE)
    try:
        try:
            create_engine(url, poolclass=NullPool).connect().close()
        except OperationalError:
            pytest.skip("the server accepts no other role")
        service.set(database_url=url.render_as_string(hide_password=False))
        yield
    finally:
        drop(live)
        live.execute(text(f"DROP ROLE {ROLE}"))


def test_the_command_that_creates_the_database_is_named(
    service: Service, live: Connection, modest: None
):
    command = f"createdb -O {ROLE} {name_of(live)}"
    assert refusal(service).endswith(command)
    create(live)
    assert f'OWNER TO "{ROLE}"' in refusal(service)
    live.execute(text(f'ALTER DATABASE "{name_of(live)}" OWNER TO {ROLE}'))
    fill(service, live)
    assert in_scratch(live) == 0
