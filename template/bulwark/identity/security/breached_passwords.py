"""Checks whether a password has been leaked, without disclosing it.

Only the first five digits of its SHA-1 hash are sent to a breach service. The response
contains the rest of each leaked hash with this prefix (k-anonymity,
https://haveibeenpwned.com/API/v3#PwnedPasswords).
"""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from urllib.request import Request, urlopen

from bulwark import settings
from bulwark.observability.logging import log

DEADLINE = 2  # seconds that a request waits for the service
PREFIX = 5  # digits of the hash that are sent to the service
# About 1,000 hashes share a prefix, with 43 characters each.
MOST_READ = 256 * 1024
# DNS lookups have no timeout of their own, so they run in a thread.
_lookups = ThreadPoolExecutor(4, thread_name_prefix="breach-service")


def is_breached(password: str) -> bool:
    """Return whether the breach service knows the password.

    Also False if no service is configured or it does not respond in time: an outage
    must not prevent anyone from setting a new password.
    """
    service = settings.current().breach_service
    if not service:
        return False
    digest = hashlib.sha1(password.encode(), usedforsecurity=False).hexdigest().upper()
    lookup = _lookups.submit(_request, service, digest[:PREFIX])
    try:
        return digest[PREFIX:] in lookup.result(DEADLINE)
    except (OSError, ValueError, HTTPException) as error:  # a timeout is an OSError
        lookup.cancel()
        log.warning("breach_service_unreachable", reason=type(error).__name__)
        return False


def _request(service: str, prefix: str) -> frozenset[str]:
    """Return the rest of each leaked hash with this prefix."""
    # Padding hides the length of the response, which would reveal the prefix.
    request = Request(f"{service}/{prefix}", headers={"Add-Padding": "true"})  # noqa: S310
    with urlopen(request, timeout=DEADLINE) as response:  # noqa: S310
        return frozenset(_suffixes(response.read(MOST_READ).decode("utf-8-sig")))


def _suffixes(body: str) -> Iterator[str]:
    for line in body.splitlines():
        suffix, _, count = line.partition(":")
        if int(count) > 0:  # padding has the count 0
            yield suffix.strip().upper()
