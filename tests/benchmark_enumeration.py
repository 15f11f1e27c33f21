"""Tells whether time shows who has an account: 200 known and 200 unknown addresses.

    .venv/bin/python -m tests.benchmark_enumeration [.venv of a service]

Each address is sent once, known and unknown in turn, to the forms of a running service
of this template. A permutation test compares the medians. To show that it would find a
leak, it runs again with a delay added to the known ones: each delay is added to 200
resamples of what was measured, and its power is how often it is found. Takes some
minutes, most of it for hashing.
"""

import random
import statistics
import subprocess
import time
from collections.abc import Sequence

from tests.test_edge import ENVIRONMENT, PASSWORD, Site
from tests.under_load import Client, fresh_address, running_site

TRIES = 200
SHUFFLES, RESAMPLES = 1000, 200
SIGNIFICANT = 0.01
DELAYS = (0.0, 0.01, 0.02, 0.05, 0.10)  # of the median
KNOWN, UNKNOWN = "known-{}@bulwark-tests.net", "alien-{}@bulwark-tests.net"
ADD_PEOPLE = f"""
from flask_security import hash_password
from bulwark.database import db, utcnow
from wsgi import app
with app.app_context():
    add = app.extensions["security"].datastore.create_user
    hashed = hash_password({PASSWORD!r})
    for n in range({TRIES}):
        email = {KNOWN!r}.format(n)
        add(email=email, password=hashed, confirmed_at=utcnow())
    db.session.commit()
"""


def add_people(site: Site) -> None:
    subprocess.run(
        [site.service / ".venv/bin/python", "-c", ADD_PEOPLE],
        cwd=site.service,
        env=ENVIRONMENT,
        check=True,
    )


def measure(site: Site, path: str) -> tuple[list[float], list[float]]:
    """Send each address once; return the seconds of known and of unknown ones."""
    client = Client(site.nginx.ports[443], site.nginx.certificate)
    took: tuple[list[float], list[float]] = ([], [])
    fields = {"password": "wrong password"} if path == "/login" else {}
    for number in range(TRIES):
        sides = [(0, KNOWN), (1, UNKNOWN)]
        random.shuffle(sides)
        client.connection.close()
        client.move(fresh_address())
        client.ask(path)
        for side, name in sides:
            started = time.perf_counter()
            status, _ = client.ask(path, email=name.format(number), **fields)
            took[side].append(time.perf_counter() - started)
            assert status == 200, status
    return took


def chance(known: Sequence[float], unknown: Sequence[float], shuffles: int) -> float:
    """Return how often mere chance parts the medians so far (a permutation test)."""
    apart = abs(statistics.median(known) - statistics.median(unknown))
    both = [*known, *unknown]
    farther = 0
    for _ in range(shuffles):
        random.shuffle(both)
        one, other = both[: len(known)], both[len(known) :]
        farther += abs(statistics.median(one) - statistics.median(other)) >= apart
    return (farther + 1) / (shuffles + 1)


def power(unknown: Sequence[float], delay: float) -> float:
    """Return how often such a delay is found, were it the only difference."""
    found = 0
    for _ in range(RESAMPLES):
        late = [value + delay for value in random.choices(unknown, k=TRIES)]
        found += chance(late, random.choices(unknown, k=TRIES), 200) < SIGNIFICANT
    return found / RESAMPLES


def report(path: str, known: Sequence[float], unknown: Sequence[float]) -> None:
    middle = statistics.median(unknown)
    ratio = statistics.median(known) / middle
    likely = chance(known, unknown, SHUFFLES)
    print(
        f"{path}: {'TELLS' if likely < SIGNIFICANT else 'does not tell'} who has an"
        f" account. Medians {1000 * middle:.1f} ms, known / unknown {ratio:.3f},"
        f" p = {likely:.3f}"
    )
    found = (f"{delay:.0%}: {power(unknown, delay * middle):.0%}" for delay in DELAYS)
    print(
        f"  a delay of so much would be found so often: {', '.join(found)}", flush=True
    )


def main() -> None:
    with running_site() as site:
        add_people(site)
        for path in ("/reset", "/register", "/login"):
            report(path, *measure(site, path))


if __name__ == "__main__":
    main()
