"""docs/embedding.md in a real browser; one server stands in for all other sites."""

import os
import ssl
import subprocess
import tomllib
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import NamedTuple

import pytest
from playwright.sync_api import Browser, Frame, expect, sync_playwright

from tests.support.certificates import certify
from tests.support.chromium import ARGUMENTS, CHROMIUM, Service, Visitor
from tests.support.guide import Service as Team
from tests.support.guide import copy_of
from tests.support.servers import PATIENCE, eventually, free_port, wait_for_port

pytestmark = pytest.mark.needs("chromium")

PAGE = b"<!doctype html><html lang=en><title>Other</title><p>Another site</p>"
SCRIPT = b"""
const frame = document.createElement("iframe");
frame.title = "Card";
frame.src = "https://js.stripe.com/card";
frame.allow = "payment";
document.querySelector("#card").append(frame);
fetch("https://api.stripe.com/ready").then(async (response) => {
  document.querySelector("#card").dataset.ready = await response.text();
});
"""
HOSTS = (
    *("www.youtube-nocookie.com", "www.openstreetmap.org", "ads.example.com"),
    *("js.stripe.com", "hooks.stripe.com", "api.stripe.com"),
)
# A host whose frames the policy allows on all pages, and COEP on none.
SOURCES = (
    'CSP_SOURCES: dict[str, list[str]] = {"frame-src": ["https://ads.example.com"]}'
)
ADD_FRAME = """(src) => {
  const frame = document.createElement("iframe");
  frame.src = src;
  document.querySelector("main").append(frame);
}"""
CREATE_POLICY = """(name) => {
  try { trustedTypes.createPolicy(name, {}); return "created"; }
  catch (error) { return error.name; }
}"""
MAY_USE = "(feature) => document.featurePolicy.allowsFeature(feature)"


COUNT = """
import os
from pathlib import Path
from prometheus_client.multiprocess import MultiProcessCollector

files = [str(path) for path in Path("instance").rglob("counter_*.db")]
print(sum(
    sample.value
    for metric in MultiProcessCollector.merge(files)
    for sample in metric.samples
    if sample.name == "browser_reports_total"
    and sample.labels["directive"] == os.environ["DIRECTIVE"]
))
"""


class OtherSite(BaseHTTPRequestHandler):
    """Answers for all other hosts, and keeps what browsers reveal to them."""

    def __init__(self, seen: list[dict[str, str]], *arguments: object) -> None:
        self.seen = seen
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        self.seen.append({**self.headers, "path": self.path})
        script = self.path.startswith("/v3")
        self.send_response(200)
        self.send_header("Content-Type", "text/javascript" if script else "text/html")
        self.send_header("Access-Control-Allow-Origin", "*")
        self.end_headers()
        self.wfile.write(SCRIPT if script else PAGE)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


class World(NamedTuple):
    """A browser, the service, and what other sites were asked."""

    browser: Browser
    service: Service
    team: Team
    seen: list[dict[str, str]]

    def visitor(self) -> Visitor:
        return Visitor(self.browser, self.service)

    def reported(self, *words: str) -> str:
        """Wait for a report with these words, and return its line of the log."""
        log = self.service.folder / "instance/dev.log"

        def look() -> str | None:
            lines = log.read_text(errors="replace").splitlines()
            found = [x for x in lines if "browser_report" in x and "directive=" in x]
            return next((x for x in found if all(w in x for w in words)), None)

        return eventually(look)

    def counted(self, directive: str) -> float:
        """Return how many reports all processes counted."""
        return float(self.team.python(COUNT, DIRECTIVE=directive))


@pytest.fixture(scope="module")
def other_sites(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[int, list[dict[str, str]]]]:
    """Run the server of all other sites."""
    folder, seen = tmp_path_factory.mktemp("other"), list[dict[str, str]]()
    certify("localhost", folder / "certificate", folder / "key")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(OtherSite, seen))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "certificate", folder / "key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_address[1], seen
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def world(
    ready: Path,
    other_sites: tuple[int, list[dict[str, str]]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[World]:
    """Run a service whose team follows the guide."""
    team = copy_of(ready, tmp_path_factory.mktemp("embedding") / "s", "embedding.md")
    team.follow(*range(1, len(team.examples)))
    settings = team.folder / "app/settings.py"
    settings.write_text(
        settings.read_text().replace("CSP_SOURCES: dict[str, list[str]] = {}", SOURCES)
    )
    port, (foreign, seen) = free_port(), other_sites
    address = f"https://localhost:{port}"
    with (team.folder / "instance/dev.log").open("wb") as log:
        process = subprocess.Popen(
            ["bin/dev", "--port", str(port)],
            cwd=team.folder,
            env=os.environ | {"APP_BASE_URL": address},
            stdout=log,
            stderr=log,
        )
    rules = ", ".join(f"MAP {host}:443 127.0.0.1:{foreign}" for host in HOSTS)
    arguments = [
        *ARGUMENTS,
        f"--host-resolver-rules={rules}",
        *("--ignore-certificate-errors", "--short-reporting-delay"),
    ]
    try:
        wait_for_port(port, process)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=CHROMIUM, args=arguments
            )
            name = tomllib.loads((team.folder / "service.toml").read_text())["name"]
            yield World(browser, Service(team.folder, address, name), team, seen)
            browser.close()
    finally:
        process.terminate()
        process.wait(PATIENCE)


@pytest.fixture
def visitor(world: World) -> Iterator[Visitor]:
    visitor = world.visitor()
    yield visitor
    visitor.context.close()


def frame_of(visitor: Visitor, host: str) -> Frame:
    """Return the frame of another site, once it has loaded."""
    shown = visitor.page.frame_locator("main iframe").locator("p")
    expect(shown).to_have_text("Another site")
    frame = visitor.page.locator("main iframe").element_handle().content_frame()
    assert frame
    assert host in frame.url
    return frame


def complaints(visitor: Visitor) -> list[str]:
    """Return what the browser complained about, except that pages ask other sites."""
    return without_requests(visitor.complaints)


def without_requests(found: list[str]) -> list[str]:
    return [x for x in found if not x.startswith("asked a foreign host")]


def test_a_video_loads_on_its_page_and_learns_only_the_site(
    world: World, visitor: Visitor
) -> None:
    visitor.open("/tour/video?secret=1")
    frame = frame_of(visitor, "youtube-nocookie.com")
    (asked,) = [x for x in world.seen if x["path"].startswith("/embed/")]
    assert asked["Referer"] == f"{world.service.address}/"
    for feature in ("geolocation", "payment", "camera"):
        assert not frame.evaluate(MAY_USE, feature)
    assert frame.evaluate(MAY_USE, "fullscreen")
    assert complaints(visitor) == []


def test_the_same_frame_on_another_page_is_refused_and_counted(
    world: World, visitor: Visitor
) -> None:
    before = world.counted("frame-src")
    visitor.open("/tour/news")
    visitor.page.evaluate(ADD_FRAME, "https://www.youtube-nocookie.com/embed/x?who=zoe")
    line = world.reported("frame-src", "/tour/news")
    assert "https://www.youtube-nocookie.com" in line
    assert "zoe" not in line
    assert [x for x in world.seen if "zoe" in x["path"]] == []
    assert world.counted("frame-src") == before + 1


def test_a_frame_that_sends_no_headers_is_refused_by_coep_and_counted(
    world: World, visitor: Visitor
) -> None:
    before = world.counted("embedder-policy")
    visitor.open("/tour/news")
    visitor.page.evaluate(ADD_FRAME, "https://ads.example.com/banner?who=zoe")
    line = world.reported("embedder-policy", "/tour/news")
    assert "https://ads.example.com" in line
    assert "zoe" not in line
    assert world.counted("embedder-policy") == before + 1
    assert "Another site" not in "".join(f.content() for f in visitor.page.frames)


def test_a_feature_is_delegated_on_its_page_only(visitor: Visitor) -> None:
    visitor.open("/tour/map")
    frame = frame_of(visitor, "openstreetmap.org")
    assert frame.evaluate(MAY_USE, "geolocation")
    assert visitor.page.evaluate(MAY_USE, "geolocation")
    assert not frame.evaluate(MAY_USE, "payment")
    visitor.open("/tour/video")
    assert not visitor.page.evaluate(MAY_USE, "geolocation")
    assert complaints(visitor) == []


def test_a_payment_runs_its_script_frame_and_requests(visitor: Visitor) -> None:
    visitor.open("/tour/pay")
    frame = frame_of(visitor, "js.stripe.com")
    assert frame.evaluate(MAY_USE, "payment")
    expect(visitor.page.locator("#card[data-ready]")).to_have_count(1)
    assert complaints(visitor) == []


def test_a_policy_is_created_on_its_page_only(world: World, visitor: Visitor) -> None:
    visitor.open("/tour/news")
    expect(visitor.page.locator("#news em")).to_have_text("Hamburg")
    assert complaints(visitor) == []
    assert visitor.page.evaluate(CREATE_POLICY, "other") == "TypeError"
    visitor.open("/tour/video")
    assert visitor.page.evaluate(CREATE_POLICY, "news") == "TypeError"
    assert "trusted-types-policy" in world.reported("trusted-types", "/tour/video")


@pytest.mark.parametrize("page", ["video", "map", "pay", "news"])
def test_a_page_that_embeds_something_suits_everybody(
    visitor: Visitor, page: str
) -> None:
    visitor.open(f"/tour/{page}")
    visitor.page.wait_for_load_state("networkidle")
    assert without_requests(visitor.objections()) == []
