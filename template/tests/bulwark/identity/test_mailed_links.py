"""Each link in an email: a test for each cell of the table in `docs/security.md`."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import select, update

from bulwark.audit.events import SecurityEvent
from bulwark.database import db, utcnow
from bulwark.identity import accounts, invitations
from bulwark.identity.authorization import RefusedError
from bulwark.identity.email_changes import AddressChange
from bulwark.web.access import ADMINISTRATOR
from tests.beginnings import begin
from tests.conftest import GOOD_PASSWORD, ROOT, Visitor, add_person, name_of
from tests.sign_up import choices_of

ZOE, NEW, YAN = "zoe@example.org", "new@example.org", "yan@example.org"
NEW_PASSWORD = "seven brass kettles hum"
OTHER_PASSWORD = "nine copper lanterns sing"

pytestmark = pytest.mark.usefixtures("public_sign_up")


@dataclass
class Place:
    """Zoë, signed in; somebody else with another browser; an administrator."""

    app: Flask
    zoe: Visitor
    other: Visitor

    def __post_init__(self) -> None:
        begin(self.zoe, "place", self.make)

    def make(self) -> None:
        add_person(self.app, ZOE)
        add_person(self.app, YAN)
        add_person(self.app, "ada@example.org", ADMINISTRATOR)
        self.zoe.sign_in(ZOE)

    def user(self, email: str) -> Any:
        return self.app.extensions["security"].datastore.find_user(email=email)

    def by_ada(self, act: Callable[..., Any], email: str) -> None:
        """Do what an administrator does to somebody."""
        with self.app.app_context():
            ada, whom = self.user("ada@example.org"), self.user(email)
            act(whom, by=ada, reason="test")
            db.session.commit()

    def links(self, address: str) -> list[str]:
        """Return the links in the emails to an address that have a token."""
        texts = [
            letter.get_body(("plain",)).get_content()  # type: ignore[union-attr]
            for letter in self.zoe.letters()
            if letter["To"] == address
        ]
        return [
            link
            for text in texts
            for link in re.findall(r"https://localhost(/\S+/[\w.-]{40,})", text)
        ]

    def to(self) -> list[str]:
        return [letter["To"] for letter in self.zoe.letters()]

    def state(self) -> list[Any]:
        """Return all that a link can change."""
        with self.app.app_context():
            found = db.session.scalars(select(type(self.user(YAN))))
            users = sorted((u.id, u.email, u.password, u.active) for u in found)
            changes = db.session.scalars(select(AddressChange.token_hash)).all()
        return [users, changes]


def invite(place: Place, email: str = NEW) -> None:
    with place.app.app_context():
        ada = place.user("ada@example.org")
        user, link = invitations.invite(email, by=ada, reason="test")
        invitations.send(user, link)
        db.session.commit()


def force_reset(place: Place) -> None:
    place.by_ada(accounts.force_reset, ZOE)


def with_password(browser: Visitor, link: str) -> None:
    browser.create_account(link, NEW_PASSWORD)


def with_a_click(browser: Visitor, link: str) -> None:
    browser.submit(link, {})


@dataclass(frozen=True)
class Link:
    """One kind of link: how it is asked for, where it goes, and how it is used."""

    ask: Callable[[Place], Any]
    address: str
    use: Callable[[Visitor, str], None]
    hours: int = 1
    notifies: tuple[str, ...] = ()
    ends_with: tuple[str, ...] = ()

    def get(self, place: Place) -> str:
        self.ask(place)
        return place.links(self.address)[-1]


SET = "Your password for {service} was set"
MOVED = "Your address for {service} was changed"
LINKS = {
    "sign-up": Link(
        ask=lambda place: place.other.submit("/register", {"email": NEW}),
        address=NEW,
        use=with_password,
        hours=24,
        ends_with=("account",),
    ),
    "invitation": Link(
        ask=invite,
        address=NEW,
        use=with_password,
        notifies=(SET,),
        ends_with=("lock", "password"),
    ),
    "new password": Link(
        ask=lambda place: place.other.submit("/reset", {"email": ZOE}),
        address=ZOE,
        use=with_password,
        notifies=(SET,),
        ends_with=("lock", "password", "address"),
    ),
    "new password, by an administrator": Link(
        ask=force_reset,
        address=ZOE,
        use=with_password,
        notifies=(SET,),
        ends_with=("lock", "password"),
    ),
    "change of address": Link(
        ask=lambda place: place.zoe.submit("/change-email", {"email": NEW}),
        address=NEW,
        use=with_a_click,
        notifies=(MOVED, MOVED),
        ends_with=("lock", "password", "address"),
    ),
    "stop of that change": Link(
        ask=lambda place: place.zoe.submit("/change-email", {"email": NEW}),
        address=ZOE,
        use=with_a_click,
        ends_with=("address",),
    ),
}
kinds = pytest.mark.parametrize("kind", LINKS)


@pytest.fixture
def place(app: Flask, visitor: Visitor, other_visitor: Visitor) -> Place:
    return Place(app, visitor, other_visitor)


def user_of(place: Place, kind: str) -> Visitor:
    """Return the browser that may use a link."""
    return place.zoe if kind == "change of address" else place.other


def works(place: Place, kind: str, link: str) -> bool:
    """Use a link; return whether that changed anything."""
    before = place.state()
    browser = user_of(place, kind)
    if browser.get(link).status_code == 200:
        LINKS[kind].use(browser, link)
    return place.state() != before


def test_the_table_names_each_link():
    text = (ROOT / "docs/security.md").read_text()
    table = text.partition("## Links in emails")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| \*\*(.+?)\*\* \|", table, re.MULTILINE)
    assert rows == list(LINKS)


# --- Method -----


@kinds
def test_opening_a_link_changes_nothing(place: Place, kind: str):
    link = LINKS[kind].get(place)
    before = place.state()
    for method in ("GET", "HEAD", "OPTIONS", "PUT", "POST"):
        for browser in (place.zoe, place.other, Visitor(place.app, place.zoe.mailbox)):
            browser.client.open(link, method=method)
        assert place.state() == before, method
    assert works(place, kind, link)


# --- Who may use it -----


@kinds
@pytest.mark.parametrize("who", ["nobody", "somebody else", "its owner"])
def test_who_may_use_a_link(place: Place, kind: str, who: str):
    link = LINKS[kind].get(place)
    before = place.state()
    browser = Visitor(place.app, place.zoe.mailbox)
    if who == "its owner":
        browser = place.zoe if place.zoe.is_signed_in() else browser
    elif who == "somebody else":
        browser.sign_in(YAN)
    if browser.get(link).status_code == 200:
        LINKS[kind].use(browser, link)
    may = kind != "change of address" or who == "its owner"
    assert (place.state() != before) is may


# --- What ends it -----


@kinds
def test_a_link_works_once(place: Place, kind: str):
    link = LINKS[kind].get(place)
    assert works(place, kind, link)
    assert not works(place, kind, link)


@kinds
@pytest.mark.parametrize("late", [False, True], ids=["in time", "late"])
def test_a_link_ends_in_time(
    place: Place, kind: str, late: bool, monkeypatch: pytest.MonkeyPatch
):
    link = LINKS[kind].get(place)
    hours = LINKS[kind].hours
    if kind == "invitation":
        hours = choices_of(place.app).invitation_hours
    after = timedelta(hours=hours, minutes=1 if late else -1)
    with place.app.app_context():
        moved = AddressChange.expires_at
        for change in db.session.scalars(select(AddressChange)):
            change.expires_at -= after
        db.session.commit()
        assert moved is not None
    now = time.time()
    if "address" not in kind and "change" not in kind:
        monkeypatch.setattr(time, "time", lambda: now + after.total_seconds())
    assert works(place, kind, link) is not late


def lock_and_unlock(place: Place, email: str) -> None:
    place.by_ada(accounts.lock, email)
    place.by_ada(accounts.unlock, email)
    if email == ZOE:
        place.zoe.sign_in(ZOE)


def change_password(place: Place, email: str) -> None:
    fresh = Visitor(place.app, place.zoe.mailbox)
    fresh.submit("/reset", {"email": email})
    fresh.create_account(place.links(email)[-1], OTHER_PASSWORD)
    if email == ZOE:
        place.zoe.sign_in(ZOE, OTHER_PASSWORD)


def change_address(place: Place, email: str) -> None:
    place.zoe.submit("/change-email", {"email": "zoe@example.net"})
    place.zoe.submit(place.links("zoe@example.net")[-1], {})


def make_account(place: Place, email: str) -> None:
    add_person(place.app, email)


ENDS = {
    "account": make_account,
    "lock": lock_and_unlock,
    "password": change_password,
    "address": change_address,
}


@pytest.mark.parametrize(
    ("kind", "end"), [(k, end) for k, link in LINKS.items() for end in link.ends_with]
)
def test_what_else_ends_a_link(place: Place, kind: str, end: str):
    link = LINKS[kind].get(place)
    owner = NEW if kind in ("sign-up", "invitation") else ZOE
    ENDS[end](place, owner)
    assert not works(place, kind, link)


def test_a_locked_account_is_sent_no_link(place: Place):
    invite(place)
    place.by_ada(accounts.lock, NEW)
    with pytest.raises(RefusedError, match="locked"):
        invite(place)
    place.by_ada(accounts.lock, ZOE)
    with pytest.raises(RefusedError, match="locked"):
        force_reset(place)
    sent = len(place.links(ZOE))
    place.other.submit("/reset", {"email": ZOE})
    assert len(place.links(ZOE)) == sent


def test_a_lock_at_the_same_moment_wins(place: Place, monkeypatch: Any):
    """The link was looked at; then the account is locked, and only then it is used."""
    link = LINKS["new password"].get(place)
    before = place.state()[0]
    from bulwark.identity.security.password_policy import PasswordPolicy

    stock = PasswordPolicy.validate

    def and_lock(*arguments: Any, **options: Any) -> Any:
        db.session.execute(
            update(type(place.user(ZOE)))
            .values(active=False)
            .execution_options(synchronize_session=False)
        )
        return stock(*arguments, **options)

    monkeypatch.setattr(PasswordPolicy, "validate", and_lock)
    place.other.submit(link, {"password": NEW_PASSWORD})
    assert [row[2] for row in place.state()[0]] == [row[2] for row in before]


# --- Who is notified -----


@kinds
def test_who_is_notified_of_a_used_link(place: Place, kind: str):
    link = LINKS[kind].get(place)
    before = len(place.zoe.letters())
    assert works(place, kind, link)
    subjects = [letter["Subject"] for letter in place.zoe.letters()[before:]]
    service = name_of(place.app)
    expected = [subject.format(service=service) for subject in LINKS[kind].notifies]
    assert subjects == expected
    with place.app.app_context():
        names = db.session.scalars(select(SecurityEvent.name)).all()
    done = {
        "sign-up": "user_created",
        "change of address": "user_email_changed",
        "stop of that change": "user_email_change_stopped",
    }.get(kind, "authn_reset_completed")
    assert done in names


@kinds
def test_who_is_notified_of_a_request(place: Place, kind: str):
    before = len(place.to())
    LINKS[kind].ask(place)
    both = "change" in kind
    assert place.to()[before:] == ([ZOE, NEW] if both else [LINKS[kind].address])


# --- How often -----


@kinds
def test_how_often_an_address_is_sent_a_link(place: Place, kind: str):
    refused = 0
    for number in range(8):
        for browser in (place.zoe, place.other):
            browser.client.environ_base["REMOTE_ADDR"] = f"192.0.2.{number}"
        try:
            LINKS[kind].ask(place)
        except RefusedError:
            refused += 1
    assert len(place.links(LINKS[kind].address)) == 5
    assert refused == (3 if kind == "invitation" or "administrator" in kind else 0)


def test_the_operator_may_send_more(place: Place):
    with place.app.app_context():
        for _ in range(8):
            accounts.force_reset(place.user(ZOE), by=None, reason="test")
            db.session.commit()
    assert len(place.links(ZOE)) == 8


# --- What time reveals -----

STRANGERS = {
    "sign-up": ("/register", "other"),
    "new password": ("/reset", "other"),
    "change of address": ("/change-email", "zoe"),
}


@pytest.mark.parametrize("kind", STRANGERS)
def test_an_address_with_an_account_costs_what_another_costs(
    place: Place, kind: str, statements: list[str]
):
    path, who = STRANGERS[kind]
    browser = getattr(place, who)
    costs = []
    for email in ("warm@example.org", YAN, NEW):
        token = browser.csrf_token(path)
        statements.clear()
        browser.client.post(
            path,
            data={"csrf_token": token, "email": email},
            headers={"Referer": f"https://localhost{path}"},
        )
        costs.append(list(statements))
    assert costs[1] == costs[2]
    assert len(place.to()) == 3 + 3 * (who == "zoe")


@pytest.mark.parametrize("kind", ["invitation", "new password, by an administrator"])
def test_only_who_may_read_accounts_learns_from_its_time(place: Place, kind: str):
    add_person(place.app, "reader@example.org")
    place.other.sign_in("reader@example.org", GOOD_PASSWORD)
    path = "/admin/users/invite" if kind == "invitation" else "/admin/users/1/reset"
    assert place.other.get(path).status_code == 403


@pytest.mark.parametrize("kind", ["change of address", "stop of that change"])
def test_a_guessed_link_costs_one_look(place: Place, kind: str, statements: list[str]):
    path = "/change-email/stop/" if "stop" in kind else "/change-email/"
    for _ in range(2):
        browser = place.zoe
        statements.clear()
        browser.get(path + "x" * 43)
    assert sum("address_changes" in asked for asked in statements) == 1


def test_nothing_is_due_for_ever(place: Place):
    LINKS["change of address"].get(place)
    with place.app.app_context():
        (change,) = db.session.scalars(select(AddressChange))
        assert change.expires_at <= utcnow() + timedelta(hours=1)
