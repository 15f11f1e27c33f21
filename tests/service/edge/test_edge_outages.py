"""nginx: error pages while the service is down, and what nginx refuses to load."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Make, run
from tests.support.edge import (
    SLUG,
    EdgeVisitor,
    Site,
)
from tests.support.servers import Nginx, eventually
from tests.support.visitor import (
    ADDRESS,
    DOMAIN,
    SECURITY_HEADERS,
)

pytestmark = pytest.mark.needs("nginx")


@pytest.fixture(scope="session")
def abandoned(
    service: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Nginx]:
    """Return nginx before a service that does not run."""
    folder = tmp_path_factory.mktemp("abandoned") / "nginx"
    with Nginx(service, DOMAIN, SLUG, folder).running() as nginx:
        yield nginx


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
@pytest.mark.parametrize("path", ["/login", "/test/proxied"])
def test_a_service_that_is_down_has_an_error_page(
    abandoned: Nginx, method: str, path: str
) -> None:
    answer = EdgeVisitor(abandoned).ask(path, method)
    assert answer.status == 503
    assert answer.header("Retry-After") == "5"
    assert answer.header("Content-Type") == "text/html; charset=utf-8"
    assert "back in a moment" in answer.body
    assert answer.count_security() == Counter(SECURITY_HEADERS)


def test_a_switch_shows_the_page_of_maintenance(
    site: Site, visitor: EdgeVisitor
) -> None:
    style = visitor.ask("/static/app.css").body
    site.nginx.maintenance.touch()
    try:
        answer = eventually(
            lambda: a if (a := visitor.ask("/")).status == 503 else None
        )
        assert "back in a moment" in answer.body
        assert answer.header("Retry-After") == "5"
        assert answer.count_security() == Counter(SECURITY_HEADERS)
        assert visitor.ask("/test/proxied").status == 503
        assert visitor.ask("/static/app.css").body == style
    finally:
        site.nginx.maintenance.unlink()
    assert visitor.ask("/").status == 200


def test_a_location_that_nginx_refuses_is_not_loaded(
    service: Path, tmp_path: Path
) -> None:
    nginx = Nginx(service, DOMAIN, SLUG, tmp_path / "nginx")
    own = nginx.service / "app/nginx/broken.conf"
    with nginx.running():
        own.write_text("location /broken { retrun 204; }")
        done = nginx.apply()
        assert done.returncode == 1
        assert 'unknown directive "retrun"' in done.stderr
        assert "still serves the previous one" in done.stderr
        # Who restarts nginx gets what was checked last, not what was refused.
        run("nginx", "-e", "stderr", "-t", "-c", nginx.config, cwd=tmp_path)
        own.write_text("location /broken { return 204; }")
        done = nginx.apply()
        assert done.returncode == 0, done.stderr
        visitor = EdgeVisitor(nginx)
        eventually(lambda: visitor.ask("/broken").status == 204)


def test_an_absent_service_leaks_no_token_into_logs(abandoned: Nginx) -> None:
    token = "WyI3YWZkYTE4ZGI5OTk0ZmU0YmRm.Xy"
    for target in (f"/reset/{token}", f"/?token={token}", f"/users/{ADDRESS}"):
        assert EdgeVisitor(abandoned).ask(target).status == 503

    def logged() -> bool:
        paths = {line["path"] for line in abandoned.requests()}
        return paths >= {"/reset/...", "/", "/users/..."}

    assert eventually(logged)
    lines = abandoned.requests()
    assert all(line["upstream_status"] == "502" for line in lines)
    for log in abandoned.logs():
        assert token not in log.read_text()
        assert ADDRESS not in log.read_text()


def test_two_services_share_one_nginx_whatever_their_names(
    service: Path, make: Make, tmp_path: Path
) -> None:
    slug, domain = "x" * 31, ".".join(["y" * 63] * 3 + ["example"])
    another = make(project_slug=slug, domain=domain)
    first = Nginx(service, DOMAIN, SLUG, tmp_path / "first")
    second = Nginx(another, domain, slug, tmp_path / "second")
    done = second.apply(first.folder)
    assert done.returncode == 0, done.stderr
    assert (first.folder / slug / "https.conf").exists()


def test_what_is_not_deployed_is_not_there(make: Make) -> None:
    service = make(deploy=[])
    there = {path.name for path in (service / "deploy").iterdir()}
    assert there == {".gitattributes", "README.md", "common.sh", "nginx"}
    assert not (service / "compose.yaml").exists()
