#!/usr/bin/python3 -I
"""Rate limiter for Apache, which has no module for it: see RewriteMap in https.conf.

Each input line is an address, followed by "tried" for a request that is slow or sends
email. Each output line is "refused" or "passed". It is a leaky bucket, like nginx's
limit_req: a request that would overflow the bucket is refused.
"""

import sys
import time
from ipaddress import IPv6Address, ip_address, ip_network
from typing import NamedTuple


class Limit(NamedTuple):
    """Requests a second, and how many more at once."""

    rate: float
    burst: int


# A network gets twice the service's limit; all together, more than the CPU can hash.
NETWORK = Limit(50, 200)
TRIED_BY_NETWORK = Limit(1, 20)
TRIED_BY_ALL = Limit(40, 20)

# Addresses of IPv4-only clients on a server without IPv4: RFC 6052 and 8215.
TRANSLATED = (ip_network("64:ff9b::/96"), ip_network("64:ff9b:1::/48"))

# Beyond this all buckets are cleared, so that many networks can't fill the memory.
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
    """Count a request; return whether it exceeds a limit."""
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
