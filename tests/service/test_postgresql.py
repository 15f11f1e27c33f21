"""PostgreSQL as servers have it: without an encoding, behind a pooler or a firewall.

Each is a fault that was reported in public, of which the test names one report.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import run
from tests.support.servers import Postgres, free_port, running, wait_for_port

pytestmark = pytest.mark.needs("postgresql")

SEVERAL_AT_ONCE = """
import json, threading
from sqlalchemy import select
from wsgi import app
from bulwark.database import db
from bulwark.identity.models import Role
from bulwark.jobs.state import recall_time, remember_time

faults = set()

def work(number):
    try:
        for _ in range(20):
            with app.app_context():
                db.session.scalars(select(Role)).all()
                db.session.scalar(select(Role.id).where(Role.name == str(number)))
                db.session.commit()
                remember_time(str(number))
                assert recall_time(str(number))
    except Exception as error:
        faults.add(type(error).__name__)

threads = [threading.Thread(target=work, args=(number,)) for number in range(5)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(json.dumps(sorted(faults)))
"""

A_NAME = """
import json
from sqlalchemy import select, text
from wsgi import app
from bulwark.database import db
from bulwark.identity.models import Role
with app.app_context():
    db.session.add(Role(name="Größe"))
    db.session.commit()
    names = db.session.scalars(select(Role.name)).all()
    encoding = db.session.scalar(text("SHOW server_encoding"))
print(json.dumps([encoding, "Größe" in names]))
"""

# Read twice: what a transaction set ends with it.
A_MOMENT = """
import json
from datetime import datetime
from sqlalchemy import text
from wsgi import app
from bulwark.database import db
found = []
with app.app_context():
    for _ in range(2):
        now = db.session.scalar(text("SELECT now()"))
        found.append(isinstance(now, datetime))
        db.session.rollback()
print(json.dumps(found))
"""

# Seconds until a connection whose other end is silent is given up, of both users.
PATIENCE = """
import json, socket
from wsgi import app
from bulwark.database import db
from bulwark.jobs import queue

def patience(connection):
    with socket.socket(fileno=connection.fileno()) as own:
        options = socket.TCP_KEEPIDLE, socket.TCP_USER_TIMEOUT
        found = [own.getsockopt(socket.IPPROTO_TCP, option) for option in options]
        own.detach()
    return found

with app.app_context():
    connection = db.session.connection().connection.driver_connection
    print(json.dumps([patience(connection), patience(queue.storage.conn)]))
"""


def ask(service: Path, url: str, code: str) -> object:
    """Run code in the service; return what it prints, as JSON."""
    command = (".venv/bin/python", "-c", code)
    environment = {"APP_ENV": "testing", "APP_DATABASE_URL": url, "PATH": "/bin"}
    output = run(*command, cwd=service, env=environment)
    return json.loads(output.splitlines()[-1])


def prepare(service: Path, url: str) -> None:
    environment = {"APP_ENV": "testing", "APP_DATABASE_URL": url, "PATH": "/bin"}
    run(".venv/bin/flask", "--app", "wsgi", "prepare", cwd=service, env=environment)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Postgres]:
    """Run a cluster as a server makes one whose locale was never set."""
    with Postgres("--no-locale", "--encoding=SQL_ASCII") as server:
        yield server


@contextmanager
def pooled(url: str, folder: Path) -> Iterator[str]:
    """Run PgBouncer in front of a database; yield the URL to use in its place."""
    start, _, name = url.rpartition("/")
    port, users, settings = free_port(), folder / "users", folder / "pgbouncer.ini"
    users.write_text('"postgres" ""')
    settings.write_text(f"""\
[databases]
* = host=127.0.0.1 port={start.rpartition(":")[2]}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {users}
pool_mode = transaction
default_pool_size = 2
""")
    folder.chmod(0o755)
    # PgBouncer refuses to run as root.
    user = {"user": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
    command = ("pgbouncer", "--quiet", settings)
    with running(*command, log=folder / "log", **user) as process:
        wait_for_port(port, process)
        yield f"postgresql://postgres@127.0.0.1:{port}/{name}"


def test_text_is_text_in_a_cluster_without_an_encoding(
    ready: Path, cluster: Postgres
) -> None:
    """psycopg/psycopg#813."""
    url = cluster.database()
    prepare(ready, url)
    assert ask(ready, url, A_NAME) == ["SQL_ASCII", True]


def test_moments_are_read_whatever_style_a_database_has(
    ready: Path, cluster: Postgres
) -> None:
    """psycopg/psycopg#571."""
    url = cluster.database()
    name = url.rpartition("/")[2]
    german = f"ALTER DATABASE {name} SET datestyle TO 'German'"
    cluster.call("psql", url, "-c", german)
    assert ask(ready, url, A_MOMENT) == [True, True]


@pytest.mark.needs("pgbouncer")
def test_a_pooler_may_give_each_transaction_another_connection(
    ready: Path, cluster: Postgres, public_folder: Path
) -> None:
    """psycopg/psycopg#280."""
    url = cluster.database()
    prepare(ready, url)
    with pooled(url, public_folder) as through_pgbouncer:
        assert ask(ready, through_pgbouncer, SEVERAL_AT_ONCE) == []


def test_a_connection_that_a_firewall_forgot_is_given_up_in_seconds(
    ready: Path, cluster: Postgres
) -> None:
    """tum-gis/3dcitydb-mcp-server#1: each visitor waited for a quarter of an hour."""
    assert ask(ready, cluster.database(), PATIENCE) == [[60, 10_000], [60, 10_000]]


def test_the_tests_own_cluster_has_utf8_on_a_machine_without_a_locale(
    ready: Path,
) -> None:
    """psycopg/psycopg#503."""
    environment = {"PATH": "/usr/sbin:/usr/bin:/bin", "LC_ALL": "C"}
    done = subprocess.run(
        ["bin/postgresql", ".venv/bin/python", "-c", A_NAME],
        cwd=ready,
        env=environment | {"APP_ENV": "testing"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == ["UTF8", True]
