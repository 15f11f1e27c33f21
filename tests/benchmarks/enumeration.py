"""Shows whether response times reveal who has an account.

    .venv/bin/python -m tests.benchmarks.enumeration [.venv of a service]

It sends 200 known and 200 unknown addresses, each once, to the forms of a running
service of this template. A known one and an unknown one alternate, so that both meet
the same load; a test of pairs compares them. To show that it would find a leak, delays
are added to resamples of what was measured, with half of the pairs swapped at random;
its power is how often each delay is found. Takes a few minutes, most of it for hashing.
"""

import math
import random
import statistics
import subprocess
import time
from collections.abc import Sequence

from tests.support.edge import ENVIRONMENT, Site
from tests.support.under_load import Client, fresh_address, running_site
from tests.support.visitor import PASSWORD

TRIES = 200
RESAMPLES = 1000
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
        client.move(fresh_address())
        client.open_form(path)
        for side, name in sides:
            started = time.perf_counter()
            status = client.submit(path, email=name.format(number), **fields).status
            took[side].append(time.perf_counter() - started)
            assert status == 200, status
    return took


def chance(ratios: Sequence[float]) -> float:
    """Return how likely chance alone parts them so far (Wilcoxon's signed ranks)."""
    ranked = sorted((math.log(ratio) for ratio in ratios), key=abs)
    over = sum(rank for rank, value in enumerate(ranked, start=1) if value > 0)
    n = len(ranked)
    spread = math.sqrt(n * (n + 1) * (2 * n + 1) / 24)
    return math.erfc(abs(over - n * (n + 1) / 4) / spread / math.sqrt(2))


def power(ratios: Sequence[float], delay: float) -> float:
    """Return how often such a delay is found in pairs that differ by chance only."""
    found = 0
    for _ in range(RESAMPLES):
        drawn = random.choices(ratios, k=len(ratios))
        pairs = [ratio ** random.choice((-1, 1)) + delay for ratio in drawn]
        found += chance(pairs) < SIGNIFICANT
    return found / RESAMPLES


def report(path: str, known: Sequence[float], unknown: Sequence[float]) -> None:
    ratios = [one / other for one, other in zip(known, unknown, strict=True)]
    likely = chance(ratios)
    print(
        f"{path}: {'TELLS' if likely < SIGNIFICANT else 'does not tell'} who has an"
        f" account. Known / unknown {statistics.median(ratios):.3f}, p = {likely:.3f},"
        f" {1000 * statistics.median(unknown):.1f} ms"
    )
    found = (f"{delay:.0%}: {power(ratios, delay):.0%}" for delay in DELAYS)
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
