"""How many cores this process may use: fewer than the machine has, in a container."""

import math
import os
from pathlib import Path


def count(root: Path = Path("/")) -> int:
    """Return the number of cores, a part of one counted as one."""
    if hasattr(os, "sched_getaffinity"):
        own = len(os.sched_getaffinity(0))
    else:  # macOS
        own = os.cpu_count() or 1
    return max(1, math.ceil(min(own, _quota(root))))


def _quota(root: Path) -> float:
    """Return what `docker run --cpus`, CPUQuota= and Kubernetes limit, in cores.

    A control group has at most what each group around it has: cgroup-v2, cpu.max.
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
    except (OSError, ValueError):  # there is none, or it is "max"
        return math.inf
