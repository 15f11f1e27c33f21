"""Servers: bare ones, one that tests share, and one of a test's own."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.deployed import Lender, Server
from tests.support.disks import BARE, installed
from tests.support.installed import Shared


@pytest.fixture
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return installed(tmp_path_factory)


@pytest.fixture(scope="package", params=["bookworm", "trixie"])
def bare(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """Return a server just after its first start, on each Debian."""
    suite = request.param
    with Server(installed(tmp_path_factory, suite, BARE[suite]["proxy"])) as server:
        yield server


@pytest.fixture(scope="package")
def lender(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lender[Shared]]:
    disk = installed(tmp_path_factory)
    with closing(Lender(lambda: Shared(disk))) as lender:
        yield lender


@pytest.fixture
def server(lender: Lender[Shared], request: pytest.FixtureRequest) -> Iterator[Server]:
    """Return a server that other tests have had, with https, that answers."""
    with lender.lend(request.session) as server:
        yield server


@pytest.fixture
def own(disk: Path) -> Iterator[Server]:
    """Return a server of the test's own, with https, that answers."""
    with Shared(disk) as server:
        yield server
