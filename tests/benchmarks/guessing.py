"""Counts the honest sign-ins served while 32 networks guess, each within its limit.

    .venv/bin/python -m tests.benchmarks.guessing [.venv of a service]

A service of this template, behind nginx with TLS. Each network sends 29 wrong passwords
a minute. Meanwhile, 25 users sign in with a browser that they used before, and 25 with
a new one, each once, from a network of their own, and nobody retries. Passwords are
hashed as in production, with bcrypt, which is timed first alone and then during the
guesses. Takes two minutes.
"""

import multiprocessing
import os
import random
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from tests.support.edge import ENVIRONMENT, Site
from tests.support.under_load import Client, fresh_address, running_site
from tests.support.visitor import PASSWORD, Response

NETWORKS, A_MINUTE = 32, 29
PEOPLE = 25  # of each kind
SECONDS = 40.0
NAME = "{}-{}@bulwark-tests.net"
DEVICE = "__Host-device"
ADD_PEOPLE = f"""
from flask_security import hash_password
from bulwark.database import db, utcnow
from wsgi import app
with app.app_context():
    add = app.extensions["security"].datastore.create_user
    hashed = hash_password({PASSWORD!r})
    for n in range({PEOPLE}):
        for kind in ("known", "new"):
            email = {NAME!r}.format(kind, n)
            add(email=email, password=hashed, confirmed_at=utcnow())
    db.session.commit()
"""

TIME_HASH = f"""
import time
from flask_security import hash_password
from wsgi import app
with app.app_context():
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(5):
        hash_password({PASSWORD!r})
    wall, cpu = (time.perf_counter() - wall) / 5, (time.process_time() - cpu) / 5
print(f"{{wall:.2f}} s ({{cpu:.2f}} s of a processor)")
"""


class Browser(Client):
    """A browser that keeps the cookie by which its account knows it."""

    def sign_in(self, email: str, password: str = PASSWORD) -> Response:
        """Open the page and submit the form, without the session of before."""
        self.cookies = {k: v for k, v in self.cookies.items() if k == DEVICE}
        self.connection.close()
        return self.fill_in("/login", email=email, password=password)


def guess(
    port: int, certificate: Path, ready: Event, over: Event, results: Any
) -> None:
    """Guess from all networks until it is over; count the answers by status."""
    os.nice(19)  # What it costs to send them is paid elsewhere.
    statuses: Counter[int] = Counter()

    def one() -> None:
        client = Client(port, certificate)
        client.ask("/login")
        time.sleep(random.uniform(0, 60 / A_MINUTE))
        for number in range(10**9):
            due = time.monotonic() + 60 / A_MINUTE
            name = f"{time.time_ns()}-{number}@bulwark-tests.net"
            status = client.submit("/login", email=name, password="wrong").status
            statuses[status] += 1
            if over.wait(max(0, due - time.monotonic())):
                return

    threads = [threading.Thread(target=one) for _ in range(NETWORKS)]
    for thread in threads:
        thread.start()
    ready.set()
    for thread in threads:
        thread.join()
    results.put(statuses)


def sign_ins(browsers: dict[str, Browser], seconds: float) -> dict[str, list[float]]:
    """Sign everybody in, spread over the time; return the seconds of who was served."""
    took: dict[str, list[float]] = {"known": [], "new": []}
    threads = []
    order = random.sample(sorted(browsers), len(browsers))

    def one(email: str) -> None:
        started = time.perf_counter()
        status = browsers[email].sign_in(email).status
        assert status in (302, 503), status
        if status == 302:
            took[email.partition("-")[0]].append(time.perf_counter() - started)

    for email in order:
        threads.append(threading.Thread(target=one, args=(email,)))
        threads[-1].start()
        time.sleep(seconds / len(order))
    for thread in threads:
        thread.join()
    return took


def people(site: Site) -> dict[str, Browser]:
    """Return everybody's browser; half of them are known to their accounts."""
    python = site.service / ".venv/bin/python"
    subprocess.run(
        [python, "-c", ADD_PEOPLE], cwd=site.service, env=ENVIRONMENT, check=True
    )
    where = site.nginx.ports[443], site.nginx.certificate
    browsers = {
        NAME.format(kind, number): Browser(*where, fresh_address())
        for kind in ("known", "new")
        for number in range(PEOPLE)
    }
    for email, browser in browsers.items():
        if email.startswith("known"):
            while (status := browser.sign_in(email).status) == 503:
                time.sleep(1)
            assert status == 302, status
            assert DEVICE in browser.cookies
    return browsers


def while_guessed(work: Callable[[], Any], site: Site) -> tuple[Any, Counter[int]]:
    """Return what the work returns, and what the guesses were answered meanwhile."""
    context = multiprocessing.get_context("spawn")
    ready, over, results = context.Event(), context.Event(), context.Queue()
    where = site.nginx.ports[443], site.nginx.certificate
    process = context.Process(target=guess, args=(*where, ready, over, results))
    process.start()
    try:
        assert ready.wait(60)
        time.sleep(10)  # until the networks are known to guess
        result = work()
        over.set()
        return result, results.get(timeout=60)
    finally:
        over.set()
        process.join(60)


def time_hash(site: Site) -> str:
    """Return how long a hash takes in a process of its own."""
    python = site.service / ".venv/bin/python"
    timed = subprocess.run(
        [python, "-c", TIME_HASH],
        cwd=site.service,
        env=ENVIRONMENT,
        check=True,
        capture_output=True,
        text=True,
    )
    return timed.stdout.splitlines()[-1]


def main() -> None:
    with running_site() as site:
        browsers = people(site)
        alone = time_hash(site)
        (took, beside), statuses = while_guessed(
            lambda: (sign_ins(browsers, SECONDS), time_hash(site)), site
        )
    print(f"a hash takes {alone} alone, {beside} while networks guess")
    answers = ", ".join(f"{n} × {s}" for s, n in sorted(statuses.items()))
    print(f"{NETWORKS} networks guessed; they were answered {answers}")
    for kind, times in took.items():
        slowest = max(times, default=0)
        print(
            f"{kind} browsers: {len(times)} of {PEOPLE} signed in, the slowest in"
            f" {slowest:.1f} s"
        )


if __name__ == "__main__":
    main()
