"""Data that a worker collects for the administrators' overview.

The web processes can't: they have no network access to check the certificate, and a
counter has only the total.
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

from bulwark import settings
from bulwark.database import utcnow
from bulwark.jobs import queue
from bulwark.jobs.state import recall, remember
from bulwark.observability import metrics

HOURS = 24
HOUR = timedelta(hours=1)
ERRORS, CERTIFICATE = "server errors", "certificate"
TIMEOUT = 2  # seconds for each step of fetching the certificate


@dataclass(frozen=True)
class Certificate:
    """The certificate that clients got at a worker's last check."""

    begins: datetime
    ends: datetime
    seen: datetime

    @property
    def days_left(self) -> int:
        """Whole days until it expires."""
        return max(0, (self.ends - utcnow()).days)

    @property
    def life_left(self) -> float:
        """The share of its lifetime that is left."""
        return max(0.0, (self.ends - utcnow()) / (self.ends - self.begins))


def first_hour() -> datetime:
    """Return when the first of the last 24 hours began; the current one is the last."""
    return utcnow().replace(minute=0, second=0, microsecond=0) - (HOURS - 1) * HOUR


@queue.periodic_task(crontab(), name="count_server_errors")  # type: ignore[untyped-decorator]
def count_server_errors() -> None:
    """Store the number of server errors in this hour.

    Several workers may do so at the same time: what each of them stores is correct.
    The stored total is read first, so a lower count means that the counters were reset.
    """
    folder = Path(settings.current().metrics_folder)
    last = recall(ERRORS)
    total = metrics.server_errors(folder)
    if last is None:  # it is unknown when earlier errors happened
        last = {"total": total, "hours": {}}
    new = total - last["total"] if total >= last["total"] else total
    first = first_hour()
    hours = {h: n for h, n in last["hours"].items() if h >= first.isoformat()}
    present = (first + (HOURS - 1) * HOUR).isoformat()
    hours[present] = hours.get(present, 0) + new
    remember(ERRORS, {"total": total, "hours": hours})


def errors_by_hour() -> dict[datetime, int]:
    """Return the server errors of each hour in which a worker counted them."""
    hours = (recall(ERRORS) or {"hours": {}})["hours"]
    return {datetime.fromisoformat(hour): count for hour, count in hours.items()}


@queue.periodic_task(crontab(minute="*/10"), name="look_at_certificate")  # type: ignore[untyped-decorator]
def store_certificate() -> None:
    """Store the certificate's validity; without a response, keep the last one."""
    if served := served_certificate():
        begins, ends = served.not_valid_before_utc, served.not_valid_after_utc
        moments = begins.isoformat(), ends.isoformat(), utcnow().isoformat()
        remember(CERTIFICATE, moments)


def certificate() -> Certificate | None:
    """Return the certificate that a worker stored, or None."""
    moments = recall(CERTIFICATE)
    return Certificate(*map(datetime.fromisoformat, moments)) if moments else None


def served_certificate() -> x509.Certificate | None:
    """Return the certificate that clients get, or None without a response."""
    try:
        with connect_as_client() as connection:
            der = connection.getpeercert(binary_form=True)
    except OSError:
        return None
    return x509.load_der_x509_certificate(der) if der else None


@contextmanager
def connect_as_client() -> Iterator[ssl.SSLSocket]:
    """Connect to the public address over TLS, as a client does."""
    url = urlsplit(settings.current().base_url)
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # an expired one must be shown as well
    address = (url.hostname or "localhost", url.port or 443)
    with (
        closing(socket.create_connection(address, TIMEOUT)) as raw,
        context.wrap_socket(raw, server_hostname=address[0]) as connection,
    ):
        yield connection
