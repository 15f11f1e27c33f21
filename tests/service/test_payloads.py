"""Known attacks, shown as rich text by a real service in a real browser."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from copier import run_copy
from playwright.sync_api import sync_playwright

from tests.conftest import run
from tests.support.chromium import ARGUMENTS, CHROMIUM, Service, Visitor
from tests.support.environments import lend_packages
from tests.support.servers import PATIENCE, free_port, wait_for_port

pytestmark = pytest.mark.needs("chromium")

VIEWS = '''

from flask import render_template_string  # noqa: E402

from tests.bulwark.web.payloads import PAYLOADS  # noqa: E402

PAGE = """
{% extends "bulwark/layout.html" %}
{% block content %}
{% for text in payloads %}<article>SHOWN</article>{% endfor %}
{% endblock %}
"""


@blueprint.get("/<way>/<int:start>")
@public
def attacks(way: str, start: int) -> ResponseReturnValue:
    """Show some of the attacks."""
    page = PAGE.replace("SHOWN", "{{ text | " + way + " }}")
    return render_template_string(page, payloads=PAYLOADS[start : start + 10])
'''
COUNT = "from tests.bulwark.web.payloads import PAYLOADS; print(len(PAYLOADS))"
# What an attack could do without an error: change the page around it.
STATE = """() => ({
  articles: document.querySelectorAll("main article").length,
  active: document.querySelectorAll(
    "article :is(script, style, img, iframe, object, embed, svg, math, form, input)"
  ).length,
  links: [...document.querySelectorAll("article a[href]")].map((a) => a.protocol),
})"""


@pytest.fixture(scope="module")
def service(
    template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """Return a running service that shows the attacks in several ways."""
    folder = tmp_path_factory.mktemp("rich_text") / "service"
    run_copy(str(template), folder, {}, defaults=True, quiet=True, unsafe=True)
    lend_packages(folder, tmp_path_factory)
    run("bin/setup", cwd=folder)
    views = folder / "app/views.py"
    views.write_text(views.read_text() + VIEWS)
    port = free_port()
    address = f"https://localhost:{port}"
    with (folder / "instance/dev.log").open("wb") as log:
        process = subprocess.Popen(
            ["bin/dev", "--port", str(port)],
            cwd=folder,
            env=os.environ | {"APP_BASE_URL": address},
            stdout=log,
            stderr=log,
        )
    try:
        wait_for_port(port, process)
        yield Service(folder, address, "service")
    finally:
        process.terminate()
        process.wait(PATIENCE)


@pytest.fixture
def visitor(service: Service) -> Iterator[Visitor]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield Visitor(browser, service)
        browser.close()


@pytest.mark.parametrize("way", ["rich", "markdown"])
def test_no_payload_runs_or_loads_anything_in_a_browser(
    visitor: Visitor, service: Service, way: str
) -> None:
    """No dialog, no request, and no report of the policy, which would block both."""
    visitor.page.on("dialog", lambda dialog: visitor.complaints.append(dialog.message))
    count = int(run(".venv/bin/python", "-c", COUNT, cwd=service.folder))
    for start in range(0, count, 10):
        visitor.open(f"/{way}/{start}")
        visitor.page.keyboard.press("Tab")
        visitor.page.mouse.move(300, 300)
        state = visitor.page.evaluate(STATE)
        assert state["articles"] == min(10, count - start)
        assert state["active"] == 0
        assert set(state["links"]) <= {"https:", "http:", "mailto:", "tel:"}
    assert visitor.complaints == []


def test_the_browser_notices_what_is_not_sanitized(visitor: Visitor) -> None:
    visitor.open("/safe/0")
    assert visitor.complaints
    assert visitor.page.evaluate(STATE)["active"] > 0
