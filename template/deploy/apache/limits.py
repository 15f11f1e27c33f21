#!/usr/bin/python3 -I
"""Counts requests for Apache, whose modules can't: see RewriteMap in https.conf.

Each line it reads is an address, followed by "tried" when the request is one that
floods are made of; each line it writes is "refused" or "passed". A bucket leaks at its
rate, and what would overflow it is refused: as nginx's limit_req does.
"""

import sys
import time
from ipaddress import IPv6Address, ip_address, ip_network
from typing import NamedTuple


class Limit(NamedTuple):
    """So many requests a second, and so many more at once."""

    rate: float
    burst: int


# One network has twice what the service allows it, all together more than cores hash.
NETWORK = Limit(50, 200)
TRIED_BY_NETWORK = Limit(1, 20)
TRIED_BY_ALL = Limit(40, 20)

# How a server without IPv4 sees each client that has nothing else: RFC 6052 and 8215.
TRANSLATED = (ip_network("64:ff9b::/96"), ip_network("64:ff9b:1::/48"))

# Then all is forgotten: an attacker with more networks fills no memory.
MOST = 100_000

Bucket = tuple[Limit, str]
levels: dict[Bucket, tuple[float, float]] = {}


def overflows(bucket: Bucket) -> bool:
    """Add a request to a bucket, unless it is full."""
    limit, now = bucket[0], time.monotonic()
    level, then = levels.get(bucket, (0.0, now))
    level = max(0.0, level - limit.rate * (now - then))
    if level > limit.burst:
        return True
    if len(levels) >= MOST:
        levels.clear()
    levels[bucket] = (level + 1, now)
    return False


def refused(address: str, *, tried: bool) -> bool:
    """Tell whether somebody asks too often."""
    found = ip_address(address)
    # A customer has at least a /64 of IPv6 (RFC 6177).
    network = str(int(found) >> 64) if isinstance(found, IPv6Address) else address
    if any(found in those for those in TRANSLATED):
        network = address
    buckets = [(NETWORK, network)]
    if tried:
        buckets += [(TRIED_BY_NETWORK, network), (TRIED_BY_ALL, "")]
    return any(overflows(bucket) for bucket in buckets)


for line in sys.stdin:
    sender, *more = line.split()
    print("refused" if refused(sender, tried=bool(more)) else "passed", flush=True)
