"""Pages of a service in headless Chromium."""

import itertools
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, NamedTuple

from playwright.sync_api import (
    Browser,
    ConsoleMessage,
    Request,
    expect,
)

from tests.support.servers import PATIENCE, free_port, wait_for_port

PASSWORD = "purple otter juggles lamps"

AXE = (files("axe_playwright_python") / "axe.min.js").read_text()

RUN_AXE = """axe
  .run({rules: {"target-size": {enabled: true}}})
  .then(({violations}) => violations.flatMap(({id, nodes}) =>
    nodes.map((node) => `${id}: ${node.html}: ${node.failureSummary}`)))"""

CHROMIUM = "/usr/bin/chromium"

# Chromium refuses root a sandbox, and otherwise calls home at each start.
ARGUMENTS = [
    *(["--no-sandbox"] if os.geteuid() == 0 else []),
    *("--disable-background-networking", "--disable-component-update"),
    *("--disable-sync", "--disable-quic", "--disable-gpu", "--no-first-run"),
]


class Service(NamedTuple):
    folder: Path
    address: str
    name: str


@contextmanager
def developed(folder: Path, name: str) -> Iterator[Service]:
    """Serve the pages of a service with bin/dev."""
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
        yield Service(folder, address, name)
    finally:
        process.terminate()
        process.wait(PATIENCE)


class Visitor:
    """Somebody with a browser, which keeps what it complained about."""

    def __init__(self, browser: Browser, service: Service, **options: Any) -> None:
        self.service = service
        self.context = browser.new_context(
            base_url=service.address,
            ignore_https_errors=True,
            reduced_motion="reduce",
            **options,
        )
        self.context.set_default_timeout(PATIENCE * 1000)
        self.page = self.context.new_page()
        self.cdp = self.context.new_cdp_session(self.page)
        self.complaints: list[str] = []
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", self._asked)

    def _heard(self, message: ConsoleMessage) -> None:
        of_an_error_page = (
            message.text.startswith("Failed to load resource")
            and message.location["url"] == self.page.url
        )
        if message.type in ("error", "warning") and not of_an_error_page:
            self.complaints.append(message.text)

    def _asked(self, request: Request) -> None:
        if not request.url.startswith((self.service.address, "data:")):
            self.complaints.append(f"asked a foreign host: {request.url}")

    def open(self, path: str) -> None:
        self.page.goto(path)

    def follow(self, link: str) -> None:
        self.page.get_by_role("link", name=link, exact=True).click()

    def press(self, button: str) -> None:
        self.page.get_by_role("button", name=button, exact=True).click()

    def send(self, button: str, fields: dict[str, str]) -> None:
        for label, value in fields.items():
            self.page.get_by_label(label, exact=True).fill(value)
        self.press(button)

    def sees(self, heading: str) -> None:
        expect(self.page.get_by_role("heading", level=1)).to_have_text(heading)

    def reads(self, words: str) -> None:
        expect(self.page.locator("main")).to_contain_text(words)

    def open_message(self, recipient: str, subject: str) -> None:
        """Wait for an email, and open the newest of its kind."""
        link = (
            self.page.get_by_role("listitem")
            .filter(has_text=f"to {recipient}")
            .get_by_role("link", name=subject)
        )
        self.open("/dev/mailbox")
        end = time.monotonic() + PATIENCE
        while not link.count() and time.monotonic() < end:
            time.sleep(0.2)
            self.open("/dev/mailbox")
        link.first.click()

    def follow_link_in_message(self, recipient: str, subject: str) -> None:
        self.open_message(recipient, subject)
        # A click can miss: Chromium may still route it to the frame of the HTML part
        # after it scrolled that frame away.
        link = self.page.locator("article a[href^='https:']").first
        self.open(str(link.get_attribute("href")))

    def sign_up(self, email: str) -> None:
        self.ask_for_account(email)
        self.send("Create account", {"Password": PASSWORD})
        self.reads("Your account was created")

    def ask_for_account(self, email: str) -> None:
        self.open("/register")
        self.send("Send me a link", {"Email address": email})
        self.reads(f"We sent an email to {email}")
        self.follow_link_in_message(email, "Your account")

    def sign_in(self, email: str, password: str = PASSWORD) -> None:
        self.open("/login")
        self.send("Sign in", {"Email address": email, "Password": password})

    def objections(self) -> list[str]:
        """Return what is wrong with the page in both color schemes, on all screens."""
        found = []
        schemes: tuple[Literal["light", "dark"], ...] = ("light", "dark")
        for scheme, width in itertools.product(schemes, (360, 1280)):
            self.page.emulate_media(color_scheme=scheme)
            self.page.set_viewport_size({"width": width, "height": 800})
            found += [f"{scheme}, {width}: {fault}" for fault in self._axe()]
        # WCAG 2.2, 1.4.10: a screen of 1280 pixels at 400%.
        self.page.set_viewport_size({"width": 320, "height": 800})
        width = self.page.evaluate("document.documentElement.scrollWidth")
        if width > 320:
            found.append(f"scrolls sideways: {width} pixels")
        if self.service.name not in self.page.title() or self.page.locator("b").count():
            found.append("the service's name is not shown as text")
        return found + self.complaints

    def _axe(self) -> list[str]:
        """Run axe in a world of its own, as browsers run extensions: the page's policy
        is neither in its way nor switched off."""
        frame = self.cdp.send("Page.getFrameTree")["frameTree"]["frame"]["id"]
        world = self.cdp.send("Page.createIsolatedWorld", {"frameId": frame})
        answer = self.cdp.send(
            "Runtime.evaluate",
            {
                "expression": f"{AXE};{RUN_AXE}",
                "contextId": world["executionContextId"],
                "awaitPromise": True,
                "returnByValue": True,
            },
        )
        faults: list[str] = answer["result"]["value"]
        return faults
