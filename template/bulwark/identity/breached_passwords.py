"""Asks a breach service whether a password was leaked, without disclosing it.

Only the first five digits of its SHA-1 hash leave this service; the answer holds the
rest of each leaked hash that begins with them (k-anonymity,
https://haveibeenpwned.com/API/v3#PwnedPasswords).
"""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from urllib.request import Request, urlopen

from bulwark import config
from bulwark.logging import log

DEADLINE = 2  # seconds that one sign-up may wait for the service
PREFIX = 5  # digits of the hash that the service gets
# About 1,000 hashes begin with the same digits, 43 characters each.
MOST_READ = 256 * 1024
# A lookup of a name has no time limit of its own, so a thread waits for it.
_askers = ThreadPoolExecutor(4, thread_name_prefix="breach-service")


def is_breached(password: str) -> bool:
    """Return whether the service knows the password.

    False as well where no service is set, or it does not answer in time: that others
    are down must keep nobody from a new password.
    """
    service = config.current().breach_service
    if not service:
        return False
    digest = hashlib.sha1(password.encode(), usedforsecurity=False).hexdigest().upper()
    asked = _askers.submit(_ask, service, digest[:PREFIX])
    try:
        return digest[PREFIX:] in asked.result(DEADLINE)
    except (OSError, ValueError, HTTPException) as error:  # a timeout is an OSError
        asked.cancel()
        log.warning("breach_service_unreachable", reason=type(error).__name__)
        return False


def _ask(service: str, prefix: str) -> frozenset[str]:
    """Return the rest of each leaked hash that begins with these digits."""
    # Padding hides from listeners how long the answer is, so which digits were asked.
    request = Request(f"{service}/{prefix}", headers={"Add-Padding": "true"})  # noqa: S310
    with urlopen(request, timeout=DEADLINE) as response:  # noqa: S310
        return frozenset(_suffixes(response.read(MOST_READ).decode("utf-8-sig")))


def _suffixes(answer: str) -> Iterator[str]:
    for line in answer.splitlines():
        suffix, _, count = line.partition(":")
        if int(count) > 0:  # padding was leaked 0 times
            yield suffix.strip().upper()
