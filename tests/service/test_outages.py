"""A database that is locked or away, a row that is refused: all get a page in style."""

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support.clients import Browser, Service, served
from tests.support.servers import Postgres, eventually
from tests.support.visitor import PASSWORD, Response

VIEWS = """

from contextlib import suppress

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from bulwark.database import db
from bulwark.identity.models import Role


@blueprint.get("/write")
@public
def write() -> ResponseReturnValue:
    db.session.add(Role(name="passing"))
    db.session.flush()
    return "written"


@blueprint.get("/stubborn")
@public
def stubborn() -> ResponseReturnValue:
    db.session.add(Role(name="passing"))
    with suppress(SQLAlchemyError):
        db.session.flush()
    return f"{len(db.session.scalars(select(Role)).all())} roles"


@blueprint.get("/null")
@public
def null() -> ResponseReturnValue:
    db.session.add(Role(name=None))
    db.session.flush()
    return "never"
"""


class Site(NamedTuple):
    """A service, and how to lose its database for a while."""

    service: Service
    outage: Callable[[], AbstractContextManager[None]]

    def lines(self, target: str) -> list[dict[str, Any]]:
        """Return what the web processes have logged of an address."""
        output = (self.service.folder / "web").read_text().splitlines()
        lines = [json.loads(line) for line in output if line.startswith("{")]
        return [line for line in lines if line.get("route") == target]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def site(
    request: pytest.FixtureRequest,
    template: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    if request.param == "sqlite":
        with served(template, tmp_path_factory, "sqlite", None, VIEWS) as service:
            yield Site(service, lambda: locked(service))
        return
    with (
        Postgres() as server,
        served(
            template, tmp_path_factory, "postgresql", server.database(), VIEWS
        ) as service,
    ):
        yield Site(service, server.away)


@contextmanager
def locked(service: Service) -> Iterator[None]:
    """Write, and do not come to an end while the block lasts."""
    (path,) = (service.folder / "service/instance").glob("production.db")
    with closing(sqlite3.connect(path, isolation_level=None, timeout=30)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        yield
        writer.execute("ROLLBACK")


def is_styled(answer: Response, title: str) -> bool:
    return title in answer.body and "bulwark.css" in answer.body


@pytest.mark.needs("postgresql")
@pytest.mark.parametrize("target", ["/write", "/stubborn"])
def test_an_outage_is_503_for_everybody_and_nobody_is_signed_out(
    site: Site, target: str
) -> None:
    visitor = Browser(site.service)
    member = site.service.person(f"{target.strip('/')}@bulwark-tests.net")
    assert [browser.ask(target).status for browser in (visitor, member)] == [200] * 2
    before = len(site.lines(target))
    with site.outage():
        answers = [browser.ask(target) for browser in (visitor, member)]
    assert [answer.status for answer in answers] == [503, 503]
    assert all(is_styled(a, "Service temporarily unavailable") for a in answers)
    assert [line["event"] for line in site.lines(target)[before:]] == [
        "sys_database_unreachable",
        "request",
    ] * 2
    # A connection that the server had closed is noticed at once, and replaced.
    assert eventually(member.is_signed_in)
    assert member.ask(target).status == 200


@pytest.mark.needs("postgresql")
def test_a_row_that_is_refused_is_one_page_one_line_one_event(site: Site) -> None:
    member = site.service.person("inserts@bulwark-tests.net")
    answers = [browser.ask("/null") for browser in (Browser(site.service), member)]
    assert [answer.status for answer in answers] == [500, 500]
    assert all(is_styled(a, "Something went wrong") for a in answers)
    lines = site.lines("/null")
    assert [line["event"] for line in lines] == ["sys_error", "request"] * 2
    assert [("actor_id" in line) for line in lines[::2]] == [False, True]


@pytest.mark.needs("postgresql")
def test_what_a_signed_in_person_sends_in_an_outage_may_be_sent_again(
    site: Site,
) -> None:
    member = site.service.person("changes@bulwark-tests.net")
    new = f"{PASSWORD}-later"
    change = member.prepare("/change", password=PASSWORD, new_password=new)
    with site.outage():
        assert change().status == 503
    assert eventually(member.is_signed_in)
    assert change().status == 302
