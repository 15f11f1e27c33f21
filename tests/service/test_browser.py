"""The pages of a new service in a real browser, and the life of an account there."""

import itertools
import re
from collections.abc import Callable, Iterator
from email import message_from_bytes
from email.policy import default
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from copier import run_copy
from playwright.sync_api import (
    Browser,
    expect,
    sync_playwright,
)

from tests.conftest import run
from tests.support.chromium import (
    ARGUMENTS,
    CHROMIUM,
    PASSWORD,
    Service,
    Visitor,
    developed,
)
from tests.support.environments import lend_packages
from tests.support.servers import PATIENCE

pytestmark = pytest.mark.needs("chromium")
expect.set_options(timeout=PATIENCE * 1000)

NAME = 'Café "Zoë" & Sons — <b>billing</b>'
OTHER_PASSWORD = "seven quiet lamps juggle an otter"
ADDRESSES = (f"'+alert`{number}`+'@example.com" for number in itertools.count())


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
    with developed(folder, NAME) as service:
        yield service


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
    visitor.press("Account")  # its menu, which is then a part of the page
    expect(visitor.page.get_by_role("button", name="Sign out")).to_be_visible()
    assert visitor.objections() == []


# The lightest that is accepted, the darkest, and colors that are hard to lighten.
@pytest.mark.parametrize(
    "color", ["#767676", "#000000", "#0000ff", "#c81e1e", "#00803e", "#8a6100"]
)
def test_a_brand_is_readable_on_every_page(
    visit: Callable[..., Visitor], person: Person, color: str
) -> None:
    visitor = visit(storage_state=person.state)
    style = f":root {{ --brand: {color}; }}"
    visitor.page.route(
        "**/app.css*", lambda route: route.fulfill(body=style, content_type="text/css")
    )
    for path in ("/account", "/account/sessions", "/change-email"):
        visitor.open(path)
        assert visitor.objections() == []
    button = visitor.page.get_by_role("button", name="Send confirmation email")
    rgb = ", ".join(str(value) for value in bytes.fromhex(color[1:]))
    expect(button).to_have_css("background-color", f"rgb({rgb})")


def test_an_email_suits_everybody(visitor: Visitor, person: Person) -> None:
    visitor.open_message(person.email, "Your account")
    visitor.reads(f"create an account at {NAME}")
    assert visitor.objections() == []


def test_the_page_of_an_invitation_suits_everybody(
    visitor: Visitor, service: Service
) -> None:
    output = run("bin/flask", "accounts", "invite", cwd=service.folder)
    visitor.open(output[output.index("/reset/") :].strip())
    expect(visitor.page.get_by_label("Password", exact=True)).to_have_value("")
    assert visitor.objections() == []


def test_the_page_for_a_new_password_suits_everybody(
    visitor: Visitor, person: Person
) -> None:
    visitor.open("/reset")
    visitor.send("Send link", {"Email address": person.email})
    visitor.follow_link_in_message(person.email, "Set a new password")
    expect(visitor.page.get_by_label("New password", exact=True)).to_have_value("")
    assert visitor.objections() == []


def test_an_email_is_as_good_in_html(visitor: Visitor, person: Person) -> None:
    visitor.open_message(person.email, "Your account")
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


def test_a_rejected_form_announces_why(visitor: Visitor) -> None:
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


def test_a_rejected_sign_in_shows_what_to_check(visitor: Visitor) -> None:
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
    visitor.press("Show the password")
    expect(password).to_have_attribute("type", "text")
    visitor.press("Hide the password")
    expect(password).to_have_attribute("type", "password")
    visitor.press("Show the password")
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
    page.get_by_role("navigation").get_by_role("link", name="Sign up").click()
    visitor.sign_up(first)
    visitor.send("Sign in", {"Email address": first, "Password": PASSWORD})
    visitor.sees("Account")
    visitor.reads(first)

    visitor.follow("Change password")
    passwords = {"Current password": PASSWORD, "New password": OTHER_PASSWORD}
    visitor.send("Change password", passwords)
    visitor.reads("Your password was changed")
    visitor.open_message(first, "was changed")
    visitor.reads("If not, set a new password immediately")

    visitor.open("/account")
    visitor.follow("Change email address")
    visitor.send("Send confirmation email", {"New email address": second})
    visitor.reads(f"We sent an email to {second}")
    visitor.open_message(first, "Change of your email address requested")
    visitor.follow_link_in_message(second, "Confirm your address")
    visitor.reads(f"changes from {first} to {second}")
    visitor.press("Change email address")
    visitor.reads("Your email address was changed")
    visitor.reads(second)

    visitor.press("Account")
    visitor.press("Sign out")
    expect(page.get_by_role("link", name="Sign in", exact=True).first).to_be_visible()
    visitor.open("/account")
    expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")

    visitor.follow("Forgot your password?")
    visitor.send("Send link", {"Email address": second})
    visitor.reads(f"If {second} has an account")
    visitor.follow_link_in_message(second, "Set a new password")
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
