"""A service as it is deployed, which the tests of this folder share."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from copier import run_copy

from tests.conftest import run
from tests.support.edge import ANSWERS, SLUG, EdgeVisitor, Member, Site, collect
from tests.support.guide import NGINX
from tests.support.guide import Service as Team
from tests.support.servers import eventually
from tests.support.visitor import (
    ADDRESS,
    PASSWORD,
)

# The team's half: a page that returns what reached it, one that fails, nginx locations.
VIEWS = f"""

@blueprint.get("/test/seen")
@public
def seen() -> ResponseReturnValue:
    from flask import request

    told = {{"address": request.remote_addr, "secure": request.is_secure}}
    return told | {{"host": request.host, "headers": dict(request.headers)}}


@blueprint.get("/test/broken")
@public
def broken() -> ResponseReturnValue:
    password = "{PASSWORD}"
    raise RuntimeError(f"It has {{len(password)}} letters")
"""


LOCATIONS = """
location /test/files/ {
    alias %(service)s/app/static/;
}
location = /test/proxied {
    client_max_body_size 2m;
    proxy_pass http://%(slug)s/test/seen;
}
location = /test/own-header {
    add_header X-Own yes always;
    include %(slug)s/headers.conf;
    return 204;
}
"""


@pytest.fixture(scope="session")
def service(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a service as a server has it, with what a team may add."""
    folder = tmp_path_factory.mktemp("srv") / SLUG
    run_copy(str(template), folder, ANSWERS, defaults=True, unsafe=True, quiet=True)
    (folder / ".env").unlink()
    run(os.environ.get("UV", "uv"), "sync", "--quiet", "--no-dev", cwd=folder)
    with (folder / "app/views.py").open("a") as file:
        file.write(VIEWS)
    Team(folder).follow(NGINX)
    collect(folder)
    text = LOCATIONS % {"service": folder, "slug": SLUG}
    (folder / "app/nginx/test.conf").write_text(text)
    return folder


@pytest.fixture(scope="session")
def site(service: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Site(service, tmp_path_factory.mktemp("site")).running() as site:
        yield site


@pytest.fixture
def visitor(site: Site) -> EdgeVisitor:
    return EdgeVisitor(site.nginx)


@pytest.fixture(scope="session")
def member(site: Site) -> Member:
    """Return somebody who signed up with the link in the email, and signed in."""
    visitor = EdgeVisitor(site.nginx)
    assert visitor.fill_in("/register", email=ADDRESS).status == 200
    link = eventually(lambda: site.mailbox.link_to(ADDRESS))
    assert visitor.fill_in(link, password=PASSWORD).status == 302
    visitor.sign_in(ADDRESS)
    assert visitor.is_signed_in()
    return Member(visitor, link)
