"""Bad days of a server: what it leans on goes away, and comes back."""

import os
import time
from collections.abc import Callable, Iterator

import pytest

from tests.support.deployed import HOME, NAME, SETTINGS, Server
from tests.support.disks import installed

pytestmark = [
    pytest.mark.needs("debootstrap", "iproute2"),
    pytest.mark.skipif(os.geteuid() != 0, reason="a machine of its own needs root"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Return a server whose service has moved to PostgreSQL."""
    with Server(installed(tmp_path_factory)) as server:
        for folder in ("repository", "current"):
            answers = server.path(f"{HOME}/{folder}/service.toml")
            text = answers.read_text().replace('"sqlite"', '"postgresql"')
            answers.write_text(text)
        for done in (server.install(), server.deploy("systemd/flask", "prepare")):
            assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        names = (server.current, "worker", "metrics")
        server.run("systemctl", "restart", *(f"{NAME}@{name}" for name in names))
        server.certify()
        yield server


def wait_until_well(server: Server) -> float:
    """Return how many seconds pass until both pages are there again."""
    begin = time.monotonic()
    while time.monotonic() < begin + 60:
        if {server.ask(t).status for t in ("/readyz", "/reset")} == {200}:
            return time.monotonic() - begin
        time.sleep(0.1)
    raise TimeoutError(server.journal("-n", "20"))


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_an_outage_of_the_database_is_reported_and_ends_by_itself(
    server: Server, how: str, record_property: Callable[[str, object], None]
) -> None:
    assert wait_until_well(server) < 60
    begin = time.monotonic()
    assert server.ask("/readyz").status == 200
    usual = time.monotonic() - begin  # longer on a busy machine
    words = ("--signal=KILL",) if how == "kill" else ()
    server.run("systemctl", how, *words, "postgresql@*")
    # The session of a signed-in visitor is a row of the database.
    for target, cookie in (("/readyz", ""), ("/account", f"__Host-session={'x' * 43}")):
        begin = time.monotonic()
        answer = server.ask(target, Cookie=cookie)
        took = time.monotonic() - begin
        record_property(f"503 of {target}", f"{took:.2f} s")
        assert took < 2 + 5 * usual
        assert answer.status == 503, target
        assert answer.headers["Retry-After"] == "5"
        assert "postgres" not in answer.body.lower()
    assert server.ask("/healthz").status == 200, "it needs no database"
    server.run("systemctl", "start", "postgresql@*", "postgresql")
    took = wait_until_well(server)
    record_property("back", f"{took:.2f} s")
    assert took < 5 + 10 * usual


def test_postgresql_and_redis_are_reached_without_a_network(
    server: Server,
) -> None:
    assert server.ask("/readyz").status == 200
    # An account of another service gets nowhere near.
    server.run("runuser", "-u", "postgres", "--", "createuser", "nobody")
    query = ("psql", "--dbname", NAME, "-c", "SELECT 1")
    done = server.attempt("runuser", "-u", "nobody", "--", *query)
    assert "permission denied for database" in done.stderr

    with server.path("/etc/redis/redis.conf").open("a") as file:
        file.write("unixsocket /run/redis/redis-server.sock\nunixsocketperm 770\n")
    server.run("systemctl", "start", "redis-server")
    server.run("usermod", "-aG", "redis", NAME)
    with server.path(SETTINGS).open("a") as file:
        file.write("APP_REDIS_URL=unix:///run/redis/redis-server.sock\n")
    server.run("systemctl", "restart", f"{NAME}@{server.current}")
    assert server.ask("/test/slow/0").status == 200
    assert "app.slow" in server.run("redis-cli", "KEYS", "*")
    assert server.install("--check").returncode == 0
