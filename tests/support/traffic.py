"""Ordinary traffic: what people and an administrator do with a service in an hour."""

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from tests.support.chain import LONG, Chain, Shop
from tests.support.clients import Browser, add_app, code_of
from tests.support.servers import eventually
from tests.support.visitor import PASSWORD, Response
from tests.support.watched import Watched

ADMINISTRATOR = "ada@bulwark-tests.net"
CODE_LASTS = 60  # seconds until nothing of the last one is left


class Traffic:
    """People who sign in, look around and sign out again, one after the other.

    Every tenth errs once, at the password or at the code; every fifteenth is new;
    every twentieth follows a link that leads nowhere; now and then an administrator
    works.
    """

    def __init__(self, service: Watched, people: int, with_codes: int) -> None:
        self.service = service
        self.numbers = itertools.count(1)  # of visits
        self.requests = 0
        self.slowest = 0.0  # seconds that a request took
        self.people = [f"person{number}@bulwark-tests.net" for number in range(people)]
        self.with_codes = [f"code{n}@bulwark-tests.net" for n in range(with_codes)]
        self.seeds: dict[str, str] = {}
        self.used = dict[str, float]()

    def begin(self) -> None:
        """Let those sign up who were there before."""
        for email in self.people:
            self.service.person(email)
        for email in self.with_codes:
            self.seeds[email] = add_app(self.service.person(email))
        administrator = self.service.person(ADMINISTRATOR)
        reason = ("--reason", "runs this service")
        self.service.flask("accounts", "grant", ADMINISTRATOR, "administrator", *reason)
        self.seeds[ADMINISTRATOR] = add_app(administrator)

    def go_on(self, seconds: float, pause: float) -> None:
        """Let people come for so long, each some seconds after the one before."""
        self.requests, self.slowest = 0, 0.0
        end = time.monotonic() + seconds
        people = itertools.cycle(self.people)
        with_codes = itertools.cycle(sorted(self.seeds))
        for number in self.numbers:
            begun = time.monotonic()
            if begun >= end:
                return
            errs = number % 10 == 0
            if number % 15 == 0:
                self.newcomer(f"new{number}@bulwark-tests.net")
            elif number % 6 == 0:
                self.visit(next(with_codes), errs=errs)
            else:
                self.visit(next(people), errs=errs, lost=number % 20 == 1)
            time.sleep(max(0, pause - (time.monotonic() - begun)))

    def visit(self, email: str, *, errs: bool, lost: bool = False) -> None:
        ask = Asking(self, Browser(self.service))
        ask.page("/")
        if lost:
            ask.page("/moved-away", 404)
        if email in self.seeds:
            if not self._sign_in_with_code(ask, email, errs):
                return
        else:
            if errs:
                ask.form("/login", 200, email=email, password=f"{PASSWORD}, or not")
            ask.form("/login", 302, email=email, password=PASSWORD)
        for path in ("/account", "/account/activity", "/account/sessions", "/"):
            ask.page(path)
        if email == ADMINISTRATOR:
            for path in ("/admin/users", "/admin/users?q=person1", "/admin/history"):
                ask.page(path)
        ask.form("/account", 302, to="/logout")

    def newcomer(self, email: str) -> None:
        ask = Asking(self, Browser(self.service))
        ask.page("/")
        ask.form("/register", 200, email=email)
        ask.form(self.service.link_to(email), 302, password=PASSWORD)
        self.visit(email, errs=False)

    def _sign_in_with_code(self, ask: "Asking", email: str, errs: bool) -> bool:
        """Sign in with both factors, unless the last code could be asked for again."""
        if time.time() - self.used.get(email, 0) < CODE_LASTS:
            return False
        self.used[email] = time.time()
        ask.form("/login", 302, email=email, password=PASSWORD)
        if errs:
            ask.form("/login/code", 200, code="000000")
        code = code_of(self.seeds[email], time.time())
        ask.form("/login/code", 302, code=code)
        return True


class Asking:
    """Asks, counts, and notices what is not answered as it should be."""

    def __init__(self, traffic: Traffic, browser: Browser) -> None:
        self.traffic, self.browser = traffic, browser

    def page(self, path: str, status: int = 200) -> None:
        self._expect(status, lambda: self.browser.ask(path))

    def form(self, path: str, status: int, to: str = "", **fields: str) -> None:
        self.traffic.requests += 1
        send = self.browser.prepare(path, to=to, **fields)
        self._expect(status, send)

    def _expect(self, status: int, ask: Callable[[], Response]) -> None:
        self.traffic.requests += 1
        begun = time.monotonic()
        answer = ask()
        self.traffic.slowest = max(self.traffic.slowest, time.monotonic() - begun)
        assert answer.status == status, answer


@contextmanager
def watched_traffic(
    service: Watched, folder: Path, speed: int, people: int, with_codes: int
) -> Iterator[tuple[Traffic, Chain]]:
    """Begin ordinary traffic, then watch with rules that are so many times as fast."""
    traffic, shop = Traffic(service, people, with_codes), Shop()
    with service.running(), shop.open() as inbox:
        traffic.begin()
        with Chain(folder, shop, inbox, service.port, speed).running() as chain:
            eventually(lambda: chain.knows("up == 1"), LONG)
            yield traffic, chain


def alarms(chain: Chain, seconds: float, state: str) -> set[str]:
    """Return the alerts that were pending, or firing, within the last seconds."""
    found = f'last_over_time(ALERTS{{alertstate="{state}"}}[{seconds:.0f}s])'
    answer = chain.ask(chain.prometheus, f"v1/query?query={quote(found)}")
    return {one["metric"]["alertname"] for one in answer["data"]["result"]}
