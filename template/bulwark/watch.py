"""What a worker notes for the overview of administration, while it runs.

The web can't: it reaches no network to look at the certificate, and a counter only says
how many there ever were.
"""

import socket
import ssl
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509
from huey import crontab

from bulwark import config, metrics
from bulwark.database import utcnow
from bulwark.jobs import keep, kept, queue

HOURS = 24
HOUR = timedelta(hours=1)
ERRORS, CERTIFICATE = "server errors", "certificate"
PATIENCE = 2  # seconds for each step of looking at the certificate


@dataclass(frozen=True)
class Certificate:
    """What visitors were shown when a worker last looked."""

    begins: datetime
    ends: datetime
    seen: datetime

    @property
    def days_left(self) -> int:
        """Whole days until it ends."""
        return max(0, (self.ends - utcnow()).days)

    @property
    def life_left(self) -> float:
        """The share of its life that is left."""
        return max(0.0, (self.ends - utcnow()) / (self.ends - self.begins))


def first_hour() -> datetime:
    """Return when the first of the last 24 hours began; the last one is not over."""
    return utcnow().replace(minute=0, second=0, microsecond=0) - (HOURS - 1) * HOUR


@queue.periodic_task(crontab(), name="count_server_errors")  # type: ignore[untyped-decorator]
def count_server_errors() -> None:
    """Note how many there were in this hour.

    Several workers may do so at once: what each of them keeps is true in itself. What
    is kept is read first, so fewer than that means that the counters began anew.
    """
    folder = Path(config.current().metrics_folder)
    known = kept(ERRORS)
    total = metrics.server_errors(folder)
    if known is None:  # when those of before happened, nobody can tell
        known = {"total": total, "hours": {}}
    new = total - known["total"] if total >= known["total"] else total
    first = first_hour()
    hours = {h: n for h, n in known["hours"].items() if h >= first.isoformat()}
    present = (first + (HOURS - 1) * HOUR).isoformat()
    hours[present] = hours.get(present, 0) + new
    keep(ERRORS, {"total": total, "hours": hours})


def errors_by_hour() -> dict[datetime, int]:
    """Return the server errors of each hour in which a worker counted them."""
    hours = (kept(ERRORS) or {"hours": {}})["hours"]
    return {datetime.fromisoformat(hour): count for hour, count in hours.items()}


@queue.periodic_task(crontab(minute="*/10"), name="look_at_certificate")  # type: ignore[untyped-decorator]
def look_at_certificate() -> None:
    """Note how long the certificate lasts; if nobody answers, what was seen stays."""
    if shown := served_certificate():
        begins, ends = shown.not_valid_before_utc, shown.not_valid_after_utc
        moments = begins.isoformat(), ends.isoformat(), utcnow().isoformat()
        keep(CERTIFICATE, moments)


def certificate() -> Certificate | None:
    """Return what a worker saw; None if it never saw any."""
    moments = kept(CERTIFICATE)
    return Certificate(*map(datetime.fromisoformat, moments)) if moments else None


def served_certificate() -> x509.Certificate | None:
    """Return what visitors are shown, whoever made it; None if nobody answers."""
    try:
        with as_visitor() as connection:
            shown = connection.getpeercert(binary_form=True)
    except OSError:
        return None
    return x509.load_der_x509_certificate(shown) if shown else None


@contextmanager
def as_visitor() -> Iterator[ssl.SSLSocket]:
    """Connect to where visitors come in."""
    url = urlsplit(config.current().base_url)
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # an expired one has to be seen as well
    address = (url.hostname or "localhost", url.port or 443)
    with (
        closing(socket.create_connection(address, PATIENCE)) as raw,
        context.wrap_socket(raw, server_hostname=address[0]) as connection,
    ):
        yield connection
