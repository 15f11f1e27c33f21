"""Bad days of a server: what it leans on goes away, and comes back."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.deployed import Server, installed

pytestmark = [
    pytest.mark.needs("debootstrap", "iproute2"),
    pytest.mark.skipif(os.geteuid() != 0, reason="a machine of its own needs root"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Return a server whose service keeps its data in PostgreSQL."""
    disk: Path = installed(tmp_path_factory, database="postgresql")
    with Server(disk) as server:
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
def test_a_database_that_is_gone_is_said_and_comes_back_by_itself(
    server: Server, how: str, record_property: Callable[[str, object], None]
) -> None:
    assert wait_until_well(server) < 60
    words = ("--signal=KILL",) if how == "kill" else ()
    server.run("systemctl", how, *words, "postgresql@*")
    # The session of a signed-in visitor is a row of the database.
    for target, cookie in (("/readyz", ""), ("/account", f"__Host-session={'x' * 43}")):
        begin = time.monotonic()
        answer = server.ask(target, Cookie=cookie)
        took = time.monotonic() - begin
        record_property(f"503 of {target}", f"{took:.2f} s")
        assert took < 2
        assert answer.status == 503, target
        assert answer.headers["Retry-After"] == "5"
        assert "postgres" not in answer.body.lower()
    assert server.ask("/healthz").status == 200, "it needs no database"
    server.run("systemctl", "start", "postgresql@*", "postgresql")
    took = wait_until_well(server)
    record_property("back", f"{took:.2f} s")
    assert took < 5
