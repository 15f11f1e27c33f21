"""The number of cores this process may use, which a container may limit."""

import math
import os
from pathlib import Path


def count(root: Path = Path("/")) -> int:
    """Return the number of cores, rounded up."""
    if hasattr(os, "sched_getaffinity"):
        own = len(os.sched_getaffinity(0))
    else:  # macOS
        own = os.cpu_count() or 1
    return max(1, math.ceil(min(own, _quota(root))))


def _quota(root: Path) -> float:
    """Return the limit of `docker run --cpus`, CPUQuota= or Kubernetes, in cores.

    The limits of all parent groups apply as well: cgroup-v2, cpu.max.
    """
    mounted = root / "sys/fs/cgroup"
    try:
        line = (root / "proc/self/cgroup").read_text(encoding="utf-8")
    except OSError:
        return math.inf
    group = mounted / line.rpartition("::/")[2].strip()
    groups = [one for one in (group, *group.parents) if one.is_relative_to(mounted)]
    return min(map(_own_quota, groups), default=math.inf)


def _own_quota(group: Path) -> float:
    try:
        quota, period = (group / "cpu.max").read_text(encoding="ascii").split()
        return int(quota) / int(period)
    except (OSError, ValueError):  # there is no quota, or it is "max"
        return math.inf
