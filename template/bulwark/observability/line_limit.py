"""A limit of log lines, so that a flood of events or requests can't fill the disk."""

import time
from collections import Counter
from threading import Lock, Timer

from bulwark.observability import metrics
from bulwark.observability.logging import log

# For each kind of line in a process. Further lines are only counted: the audit trail
# still has each event, and the proxy's log each request.
LINES_A_MINUTE = 1000


class LineLimiter:
    """Limits how many lines of one kind are written, and counts the others."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._lines: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()
        self._window_ends = 0.0

    def allow(self, kind: str) -> bool:
        """Count a line, and return whether to write it."""
        with self._lock:
            if time.monotonic() >= self._window_ends:
                self._lines.clear()
                self._window_ends = time.monotonic() + 60
            self._lines[kind] += 1
            if self._lines[kind] <= LINES_A_MINUTE:
                return True
            self._drop(kind)
            return False

    def _drop(self, kind: str) -> None:
        metrics.current().lines_dropped.labels(kind).inc()
        if not self._dropped:
            delay = max(0.1, self._window_ends - time.monotonic())
            timer = Timer(delay, self.log_dropped)
            timer.daemon = True
            timer.start()
        self._dropped[kind] += 1

    def log_dropped(self) -> None:
        """Log how many lines were dropped since the last time."""
        with self._lock:
            dropped, self._dropped = self._dropped, Counter()
        for kind, count in dropped.items():
            log.warning("lines_left_out", of=kind, count=count)


line_limiter = LineLimiter()
