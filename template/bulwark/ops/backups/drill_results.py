"""What the restore drills found: their last result, and when one is due."""

from dataclasses import dataclass
from datetime import datetime

from bulwark.jobs.state import recall, recall_time, remember, remember_time

PASSED, FAILED, SECONDS = "restore drill", "restore drill failed", "restore drill time"
FIRST_BACKUP = "first backup"


@dataclass(frozen=True)
class Results:
    """When a drill last passed, and the result and the duration of the last one."""

    passed_at: datetime | None
    failed: bool
    seconds: float
    first_backup: datetime | None  # before it, no drill can pass

    @property
    def waiting_since(self) -> datetime | None:
        """Return since when the next drill is awaited."""
        return self.passed_at or self.first_backup


def read() -> Results:
    """Return the results."""
    seconds = recall(SECONDS)
    return Results(
        passed_at=recall_time(PASSED),
        failed=recall(FAILED) is True,
        seconds=float(seconds) if isinstance(seconds, int | float) else 0.0,
        first_backup=recall_time(FIRST_BACKUP),
    )


def remember_backup() -> None:
    """Store when the last backup was created, and the first one."""
    remember_time("backup")
    if recall_time(FIRST_BACKUP) is None:
        remember_time(FIRST_BACKUP)


def remember_drill(*, failed: bool, seconds: float) -> None:
    """Store the result of a drill."""
    remember(FAILED, failed)
    remember(SECONDS, seconds)
    if not failed:
        remember_time(PASSED)
