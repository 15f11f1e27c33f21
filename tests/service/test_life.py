"""The life of an administrator's account in a real browser, through nginx and TLS."""

import base64
import hashlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from copier import run_copy
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from playwright.sync_api import Browser, sync_playwright

from tests.conftest import run
from tests.support.chromium import ARGUMENTS, CHROMIUM, Visitor
from tests.support.chromium import Service as Address
from tests.support.clients import code_of
from tests.support.edge import ANSWERS, ENVIRONMENT, Site, collect
from tests.support.environments import lend_packages
from tests.support.servers import eventually
from tests.support.visitor import DOMAIN

pytestmark = [pytest.mark.needs("nginx"), pytest.mark.needs("chromium")]

ADMIN = "ada@bulwark-tests.net"
PASSWORD = "purple otter juggles lamps"
PHONE = {
    "protocol": "ctap2",
    "transport": "internal",
    "hasResidentKey": True,
    "hasUserVerification": True,
    "isUserVerified": True,
    "automaticPresenceSimulation": False,  # nobody touches it
}


class Person(Visitor):
    """Somebody with a browser and, until it is lost, a phone that holds passkeys."""

    def take_phone(self) -> None:
        self.cdp.send("WebAuthn.enable")
        made = self.cdp.send("WebAuthn.addVirtualAuthenticator", {"options": PHONE})
        self.phone = made["authenticatorId"]

    def touch_phone(self, button: str, then: str) -> None:
        """Press a button, and let the phone agree until the next page is there."""
        # The sign-in page waits for a passkey without a button too, from its start.
        self.page.wait_for_load_state("networkidle")
        self._answer(enabled=True)
        self.press(button)
        self.sees(then)
        self._answer(enabled=False)

    def _answer(self, *, enabled: bool) -> None:
        self.cdp.send(
            "WebAuthn.setAutomaticPresenceSimulation",
            {"authenticatorId": self.phone, "enabled": enabled},
        )

    def lose_phone(self) -> None:
        self.cdp.send(
            "WebAuthn.removeVirtualAuthenticator", {"authenticatorId": self.phone}
        )

    def sign_out(self) -> None:
        self.open("/account")
        self.press("Account")
        self.press("Sign out")
        self.open("/account")
        self.sees("Sign in")


@pytest.fixture(scope="module")
def site(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("life")
    made, answers = folder / "service", ANSWERS | {"admin_email": ADMIN}
    run_copy(str(template), made, answers, defaults=True, unsafe=True, quiet=True)
    lend_packages(made, tmp_path_factory, "--no-dev")
    collect(made)
    with Site(made, folder / "site").running() as site:
        yield site


@pytest.fixture(scope="module")
def browser(site: Site) -> Iterator[Browser]:
    """Return a browser that finds the domain here and trusts its certificate."""
    certificate = x509.load_pem_x509_certificate(site.nginx.certificate.read_bytes())
    key = certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    pin = base64.b64encode(hashlib.sha256(key).digest()).decode()
    arguments = [
        *ARGUMENTS,
        f"--host-resolver-rules=MAP {DOMAIN}:443 127.0.0.1:{site.nginx.ports[443]}",
        f"--ignore-certificate-errors-spki-list={pin}",
    ]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


def letter_to(site: Site, email: str, subject: str) -> str:
    """Wait for an email; return its text."""

    def look() -> str | None:
        for message in reversed(site.mailbox.messages):
            text = message.get_body(("plain",))
            if message["To"] == email and subject in message["Subject"] and text:
                return str(text.get_content())
        return None

    return eventually(look)


@pytest.fixture
def ada(browser: Browser, site: Site) -> Person:
    """Return the first administrator, who was never here."""
    address = Address(site.service, f"https://{DOMAIN}", ANSWERS["project_name"])
    return Person(browser, address)


@pytest.fixture
def other(browser: Browser, site: Site) -> Person:
    """Return another computer."""
    address = Address(site.service, f"https://{DOMAIN}", ANSWERS["project_name"])
    return Person(browser, address)


def test_from_the_one_time_link_to_a_lost_phone_and_a_revoked_session(
    ada: Person, other: Person, site: Site
) -> None:
    set_a_password(ada, site)
    ada.sign_in(ADMIN, PASSWORD)
    codes = set_up_a_passkey(ada, site)
    sign_in_with_the_passkey(ada)
    key = lose_the_phone(ada, codes[0])
    end_a_session_elsewhere(ada, other, key, site)
    administer(ada)
    assert ada.complaints == []
    assert other.complaints == []


def set_a_password(ada: Person, site: Site) -> None:
    output = run(
        *(".venv/bin/flask", "--app", "wsgi", "accounts", "invite"),
        cwd=site.service,
        env=ENVIRONMENT,
    )
    ada.open(output[output.index("/reset/") :].split()[0])
    ada.send("Set password", {"Password": PASSWORD})
    ada.reads("Your new password is set")


def set_up_a_passkey(ada: Person, site: Site) -> list[str]:
    """Do what an administrator must do first; return the recovery codes."""
    ada.sees("Set up a second factor")
    ada.open("/admin/users")
    ada.sees("Set up a second factor")
    ada.take_phone()
    ada.follow("Add a passkey")
    ada.page.get_by_label("Name", exact=True).fill("Phone")
    ada.touch_phone("Add a passkey", "Recovery codes")
    ada.press("Generate codes")
    codes = ada.page.locator("code").all_inner_texts()
    assert len(codes) == 10
    assert ada.objections() == []
    ada.follow("I have saved these codes")
    ada.reads("10 left")
    assert letter_to(site, ADMIN, "second factor")
    return codes


def sign_in_with_the_passkey(ada: Person) -> None:
    """Use it as the only step, then as the second."""
    ada.sign_out()
    ada.open("/login")
    ada.touch_phone("Sign in with a passkey", "Account")
    ada.sign_out()
    ada.sign_in(ADMIN, PASSWORD)
    ada.sees("Use your passkey")
    ada.touch_phone("Use passkey", "Account")


def lose_the_phone(ada: Person, recovery_code: str) -> str:
    """Get in without it, and set up an app instead; return the app's seed."""
    ada.sign_out()
    ada.lose_phone()
    ada.sign_in(ADMIN, PASSWORD)
    ada.follow("Lost it? Use a recovery code")
    ada.send("Sign in", {"Recovery code": recovery_code})
    ada.reads("9 left")
    ada.open("/account/authenticator")
    ada.press("I have an app, continue")
    key = ada.page.locator("code.key").inner_text().replace(" ", "")
    ada.send("Finish", {"Code": code_of(key, time.time() - 30)})
    ada.open("/account/passkeys")
    ada.page.locator("summary", has_text="Remove Phone").click()
    ada.press("Remove passkey")
    ada.reads("was removed")
    return key


def end_a_session_elsewhere(ada: Person, other: Person, key: str, site: Site) -> None:
    """Sign in on another computer, which is reported, and end that session."""
    ada.sign_out()
    for person, moment in ((ada, time.time()), (other, time.time() + 30)):
        person.sign_in(ADMIN, PASSWORD)
        person.send("Continue", {"Code": code_of(key, moment)})
        person.sees("Account")
    assert "Chrom" in letter_to(site, ADMIN, "New sign-in")
    ada.open("/account/sessions")
    ada.press("Sign out everywhere else")
    other.open("/account")
    other.sees("Sign in")
    ada.open("/account/activity")
    ada.reads("Sessions were signed out")


def administer(ada: Person) -> None:
    """Invite somebody, lock the account, and find both in the history."""
    people = ("/admin/users", "/admin/users/1")
    for path in ("/admin", *people, "/admin/roles", "/admin/roles/new"):
        ada.open(path)
        assert ada.objections() == []
    ada.open("/admin/users/invite")
    ada.send("Invite", {"Email address": "new@example.org", "Reason": "She starts"})
    ada.reads("The invitation is on its way.")
    ada.follow("new@example.org")
    ada.follow("Lock the account")
    ada.send("Lock the account", {"Reason": "She starts next month"})
    ada.reads("new@example.org is locked and signed out.")
    ada.open("/admin/history")
    ada.reads("She starts next month")
    assert ada.objections() == []
