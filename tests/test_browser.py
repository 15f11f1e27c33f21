"""The pages of a new service in a real browser, and the life of an account there."""

import itertools
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from email import message_from_bytes
from email.policy import default
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytest
from copier import run_copy
from playwright.sync_api import (
    Browser,
    ConsoleMessage,
    Request,
    expect,
    sync_playwright,
)

from tests.conftest import run
from tests.environments import lend_packages
from tests.servers import PATIENCE, free_port, wait_for_port

pytestmark = pytest.mark.needs("chromium")
expect.set_options(timeout=PATIENCE * 1000)

NAME = 'Café "Zoë" & Sons — <b>billing</b>'
PASSWORD = "purple otter juggles lamps"
OTHER_PASSWORD = "seven quiet lamps juggle an otter"
ADDRESSES = (f"'+alert`{number}`+'@example.com" for number in itertools.count())

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

    def button_form(self, button: str) -> None:
        self.page.get_by_role("button", name=button, exact=True).click()

    def send(self, button: str, fields: dict[str, str]) -> None:
        for label, value in fields.items():
            self.page.get_by_label(label, exact=True).fill(value)
        self.button_form(button)

    def sees(self, heading: str) -> None:
        expect(self.page.get_by_role("heading", level=1)).to_have_text(heading)

    def reads(self, words: str) -> None:
        expect(self.page.locator("main")).to_contain_text(words)

    def open_letter(self, recipient: str, subject: str) -> None:
        """Wait for a mail, and open the newest of its kind."""
        letter = (
            self.page.get_by_role("listitem")
            .filter(has_text=f"to {recipient}")
            .get_by_role("link", name=subject)
        )
        self.open("/dev/mailbox")
        end = time.monotonic() + PATIENCE
        while not letter.count() and time.monotonic() < end:
            time.sleep(0.2)
            self.open("/dev/mailbox")
        letter.first.click()

    def follow_link_in_letter(self, recipient: str, subject: str) -> None:
        self.open_letter(recipient, subject)
        self.page.locator("article a[href^='https:']").first.click()

    def sign_up(self, email: str) -> None:
        self.ask_for_account(email)
        self.send("Create account", {"Password": PASSWORD})
        self.reads("Your account was created")

    def ask_for_account(self, email: str) -> None:
        self.open("/register")
        self.send("Send me a link", {"Email address": email})
        self.reads(f"We sent an email to {email}")
        self.follow_link_in_letter(email, "Your account")

    def sign_in(self, email: str, password: str = PASSWORD) -> None:
        self.open("/login")
        self.send("Sign in", {"Email address": email, "Password": password})

    def objections(self) -> list[str]:
        """Return what is wrong with the page in both colour schemes, on all screens."""
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


@pytest.fixture(scope="module")
def service(
    template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """Return a running service with a name that is hard to show."""
    folder = tmp_path_factory.mktemp("browser") / "service"
    answers = {"project_name": NAME}
    run_copy(str(template), folder, answers, defaults=True, quiet=True, unsafe=True)
    lend_packages(folder, tmp_path_factory)
    run("bin/setup", cwd=folder)
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
        yield Service(folder, address, NAME)
    finally:
        process.terminate()
        process.wait(PATIENCE)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Browser, service: Service) -> Iterator[Callable[..., Visitor]]:
    """Return a function that opens a browser."""
    visitors = []

    def visit(**options: Any) -> Visitor:
        visitors.append(Visitor(browser, service, **options))
        return visitors[-1]

    yield visit
    for visitor in visitors:
        visitor.context.close()


@pytest.fixture
def visitor(visit: Callable[..., Visitor]) -> Visitor:
    return visit()


class Person(NamedTuple):
    """Somebody with an account, and what a browser keeps that is signed in."""

    email: str
    state: Any


@pytest.fixture(scope="module")
def person(browser: Browser, service: Service) -> Person:
    email, visitor = next(ADDRESSES), Visitor(browser, service)
    visitor.sign_up(email)
    visitor.sign_in(email)
    visitor.sees("Account")
    state = visitor.context.storage_state()
    visitor.context.close()
    return Person(email, state)


# --- Every page --------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        *("/", "/register", "/login", "/login?next=/account", "/reset"),
        *("/login/passkey", "/nowhere", "/dev/mailbox"),
    ],
)
def test_a_public_page_suits_everybody(visitor: Visitor, path: str) -> None:
    visitor.open(path)
    assert visitor.objections() == []


@pytest.mark.parametrize(
    "path",
    [
        *("/", "/account", "/change", "/change-email", "/verify", "/verify/passkey"),
        *("/reset", "/account/second-factor", "/account/passkeys"),
        *("/account/authenticator", "/account/recovery-codes", "/account/sessions"),
        *("/account/activity", "/account/tokens"),
    ],
)
def test_a_page_of_an_account_suits_everybody(
    visit: Callable[..., Visitor], person: Person, path: str
) -> None:
    visitor = visit(storage_state=person.state)
    visitor.open(path)
    expect(visitor.page.get_by_role("link", name="Account", exact=True)).to_be_visible()
    assert visitor.objections() == []


def test_a_letter_suits_everybody(visitor: Visitor, person: Person) -> None:
    visitor.open_letter(person.email, "Your account")
    visitor.reads(f"create an account at {NAME}")
    assert visitor.objections() == []


def test_the_page_for_a_new_password_suits_everybody(
    visitor: Visitor, service: Service
) -> None:
    said = run("bin/flask", "accounts", "invite", cwd=service.folder)
    visitor.open(said[said.index("/reset/") :].strip())
    expect(visitor.page.get_by_label("New password", exact=True)).to_have_value("")
    assert visitor.objections() == []


def test_a_mail_is_as_good_in_html(visitor: Visitor, person: Person) -> None:
    visitor.open_letter(person.email, "Your account")
    link = visitor.page.locator("article a[href^='https:']").get_attribute("href")
    file = visitor.page.url.rpartition("/")[2] + ".eml"
    mail = (visitor.service.folder / "instance/mailbox" / file).read_bytes()
    html = message_from_bytes(mail, policy=default).get_body(("html",))
    assert link
    assert html
    visitor.open("about:blank")
    visitor.page.set_content(html.get_content())
    button = visitor.page.get_by_role("link", name="Open the link")
    expect(button).to_have_attribute("href", link)
    expect(visitor.page.locator("body")).to_contain_text(f"create an account at {NAME}")
    assert visitor.page.title() == f"Your account at {NAME}"


# --- Forms -------------------------------------------------------------------------


def test_a_refused_form_says_why_where_it_is_heard(visitor: Visitor) -> None:
    visitor.ask_for_account(next(ADDRESSES))
    visitor.send("Create account", {"Password": "short"})
    password = visitor.page.get_by_label("Password", exact=True)
    expect(visitor.page.locator(":focus")).to_contain_text("Check Password")
    expect(password).to_have_attribute("aria-invalid", "true")
    expect(password).to_have_accessible_description(re.compile("^Use 15 characters"))
    expect(password).to_have_value("")
    assert visitor.page.title().startswith("Error: Choose a password")
    assert visitor.objections() == []


def test_a_refused_form_keeps_what_was_typed(visitor: Visitor) -> None:
    visitor.sign_in("zoe@example.com", "not this one")
    expect(visitor.page.get_by_label("Email address")).to_have_value("zoe@example.com")


def test_a_refused_sign_in_says_what_to_check(visitor: Visitor) -> None:
    visitor.sign_in("nobody@example.com")
    expect(visitor.page.locator(":focus")).to_contain_text("Incorrect email")
    assert visitor.objections() == []


def test_a_form_that_was_taken_makes_room_for_what_is_next(visitor: Visitor) -> None:
    visitor.open("/reset")
    visitor.send("Send link", {"Email address": "nobody@example.com"})
    expect(visitor.page.get_by_role("status")).to_contain_text("is on its way")
    expect(visitor.page.locator("form")).to_have_count(0)
    assert visitor.objections() == []


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/register", {"email": "username"}),
        ("/login", {"email": "username webauthn", "password": "current-password"}),
        ("/change-email", {"email": "email"}),
        ("/verify", {"": "username", "password": "current-password"}),
        (
            "/change",
            {
                "": "username",
                "password": "current-password",
                "new_password": "new-password",
            },
        ),
    ],
)
def test_a_password_manager_knows_each_field(
    visit: Callable[..., Visitor], person: Person, path: str, expected: dict[str, str]
) -> None:
    of_a_stranger = path in ("/register", "/login")
    visitor = visit() if of_a_stranger else visit(storage_state=person.state)
    visitor.open(path)
    fields = visitor.page.locator("input[autocomplete]").all()
    assert {
        str(field.get_attribute("name") or ""): field.get_attribute("autocomplete")
        for field in fields
    } == expected


def test_a_password_can_be_shown_and_is_hidden_when_it_is_sent(
    visitor: Visitor,
) -> None:
    visitor.open("/login")
    password = visitor.page.get_by_label("Password", exact=True)
    visitor.button_form("Show the password")
    expect(password).to_have_attribute("type", "text")
    visitor.button_form("Hide the password")
    expect(password).to_have_attribute("type", "password")
    visitor.button_form("Show the password")
    visitor.page.evaluate(
        "document.forms[0].addEventListener('submit', (e) => e.preventDefault())"
    )
    visitor.send("Sign in", {"Email address": "zoe@example.com", "Password": "secret"})
    expect(password).to_have_attribute("type", "password")
    assert visitor.complaints == []


def test_a_keyboard_is_enough_to_sign_in(visitor: Visitor, person: Person) -> None:
    visitor.open("/login")
    for keys in ("Tab", "Enter", "Tab"):  # skips what every page begins with
        visitor.page.keyboard.press(keys)
    visitor.page.keyboard.type(person.email)
    visitor.page.keyboard.press("Tab")
    visitor.page.keyboard.type(PASSWORD)
    visitor.page.keyboard.press("Enter")
    visitor.sees("Account")


# --- The life of an account --------------------------------------------------------


@pytest.mark.parametrize("javascript", [True, False], ids=["scripts", "no scripts"])
def test_the_life_of_an_account(
    visit: Callable[..., Visitor], javascript: bool
) -> None:
    visitor = visit(java_script_enabled=javascript)
    page, first, second = visitor.page, next(ADDRESSES), next(ADDRESSES)
    visitor.open("/")
    visitor.follow("Sign up")
    visitor.sign_up(first)
    visitor.send("Sign in", {"Email address": first, "Password": PASSWORD})
    visitor.sees("Account")
    visitor.reads(first)

    visitor.follow("Change password")
    passwords = {"Current password": PASSWORD, "New password": OTHER_PASSWORD}
    visitor.send("Change password", passwords)
    visitor.reads("Your password was changed")
    visitor.open_letter(first, "was changed")
    visitor.reads("If not, set a new password immediately")

    visitor.open("/account")
    visitor.follow("Change email address")
    visitor.send("Send confirmation email", {"New email address": second})
    visitor.reads(f"We sent an email to {second}")
    visitor.open_letter(first, "Change of your email address requested")
    visitor.follow_link_in_letter(second, "Confirm your address")
    visitor.reads(f"changes from {first} to {second}")
    visitor.button_form("Change email address")
    visitor.reads("Your email address was changed")
    visitor.reads(second)

    visitor.button_form("Sign out")
    expect(page.get_by_role("link", name="Sign in", exact=True).first).to_be_visible()
    visitor.open("/account")
    expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")

    visitor.follow("Forgot your password?")
    visitor.send("Send link", {"Email address": second})
    visitor.reads(f"If {second} has an account")
    visitor.follow_link_in_letter(second, "Set a new password")
    visitor.send("Set password", {"New password": PASSWORD})
    visitor.reads("Your new password is set")
    visitor.sign_in(second, OTHER_PASSWORD)
    visitor.reads("Incorrect email address or password")
    visitor.sign_in(second)
    visitor.sees("Account")
    assert visitor.complaints == []


def test_without_scripts_no_button_is_there_that_needs_one(
    visit: Callable[..., Visitor],
) -> None:
    visitor = visit(java_script_enabled=False)
    visitor.open("/login")
    expect(visitor.page.get_by_role("button")).to_have_text(["Sign in"])
