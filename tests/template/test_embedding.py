"""docs/embedding.md, done to a new service as a reader would."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.guide import Service, changing_its_own_files, copy_of

TOUR = """
from tests.bulwark.web.test_headers import csp


def isolation(answer):
    return answer.headers["Cross-Origin-Embedder-Policy"].partition(";")[0]


def test_each_page_has_its_own_exceptions(visitor):
    video, shop = visitor.get("/tour/video"), visitor.get("/tour/pay")
    assert csp(video)["frame-src"] == "https://www.youtube-nocookie.com"
    assert (isolation(video), isolation(visitor.get("/"))) == (
        "unsafe-none",
        "require-corp",
    )
    assert "frame-src" not in csp(visitor.get("/"))
    assert 'payment=(self "https://js.stripe.com" "https://hooks.stripe.com")' in (
        shop.headers["Permissions-Policy"]
    )
    assert "payment=()" in video.headers["Permissions-Policy"]
    assert csp(visitor.get("/tour/news"))["trusted-types"] == "news"
    assert csp(video)["trusted-types"] == "'none'"
    latest = visitor.get("/tour/news/latest").text
    assert latest == "<p>We moved to <em>Hamburg</em>.</p>"
"""
SHIPPED = (
    *("test_facade.py", "test_service.py", "web/test_headers.py"),
    *("web/test_access_matrix.py", "web/test_embedding.py", "web/test_hostile.py"),
)
LISTED = """\
yes yes yes GET /tour/map frames: https://www.openstreetmap.org features: geolocation
yes yes yes GET /tour/news trusted types: news
yes yes yes GET /tour/news/latest
yes yes yes GET /tour/pay frames: https://js.stripe.com https://hooks.stripe.com \
scripts: https://js.stripe.com connect: https://api.stripe.com features: payment popups
yes yes yes GET /tour/video frames: https://www.youtube-nocookie.com
"""


@pytest.fixture
def team(ready: Path, tmp_path: Path) -> Iterator[Service]:
    """Return a service whose team follows the guide, and changes its own files only."""
    service = copy_of(ready, tmp_path / "service", "embedding.md")
    with changing_its_own_files(service):
        yield service


def listed(team: Service) -> str:
    """Return the routes of the guide in app/access.txt, with single blanks."""
    lines = (team.folder / "app/access.txt").read_text().splitlines()
    return "".join(f"{' '.join(x.split())}\n" for x in lines if "/tour/" in x)


def test_a_team_embeds_other_sites_and_every_check_passes(team: Service) -> None:
    team.follow(*range(1, len(team.examples)))
    assert listed(team) == LISTED
    for check in ("ruff format --check", "ruff check", "mypy", "lint-imports"):
        team.run("sh", "-c", f".venv/bin/{check}")
    team.proves(TOUR)
    team.run("bin/test", "-q", "-n0", *(f"tests/bulwark/{name}" for name in SHIPPED))


def test_an_exception_that_nobody_reviewed_fails_a_test(team: Service) -> None:
    team.follow(1)
    tour = team.folder / "app/tour.py"
    tour.write_text(
        tour.read_text().replace("@embeds(", '@embeds(\n    "https://a.example",')
    )
    output = team.refusal(
        "bin/test", "-q", "-n0", "tests/bulwark/web/test_access_matrix.py"
    )
    assert "https://a.example" in output
    assert "bin/flask access --write" in output


def test_an_unsafe_exception_stops_the_start_with_advice(team: Service) -> None:
    team.follow(1)
    tour = team.folder / "app/tour.py"
    tour.write_text(tour.read_text().replace("https://www.", "https://*."))
    output = team.run("sh", "-c", "bin/flask routes 2>&1 || true")
    assert "can't allow frames from 'https://*.youtube-nocookie.com'" in output
    assert "write https://host in lowercase, without a path, a wildcard" in output
    assert "tour.py" in output
