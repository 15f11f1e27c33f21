"""Counts of events by hour, for the overview."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Subquery, case, func, select

from bulwark.audit.events import SecurityEvent
from bulwark.database import db
from bulwark.ops.status import HOUR, HOURS

# The events that each series counts, by its key in JSON.
COUNTED = {
    "sign_ins": ("authn_login_success", "authn_login_successafterfail"),
    "failed_sign_ins": ("authn_login_fail", "authn_mfa_fail"),
    "limits": ("excess_rate_limit_exceeded",),
    "refusals": ("authz_fail",),
}
NAMES = {
    "sign_ins": "Sign-ins",
    "failed_sign_ins": "Failed sign-ins",
    "limits": "Rate limits reached",
    "refusals": "Denied requests",
    "server_errors": "Server errors",
}
# Counting stops here, so that a flood of events does not slow down the page.
MOST_COUNTED = 200_000


@dataclass(frozen=True)
class Series:
    """The number of events in each hour; None is unknown."""

    key: str
    by_hour: Sequence[int | None]

    @property
    def name(self) -> str:
        """The name of the series, as shown on the page."""
        return NAMES[self.key]

    @property
    def count(self) -> int | None:
        """The total of the known hours."""
        known = [count for count in self.by_hour if count is not None]
        return sum(known) if known else None

    @property
    def most(self) -> int:
        """The number of events in the busiest hour."""
        return max((count or 0 for count in self.by_hour), default=0)

    @property
    def busiest(self) -> int:
        """The index of the busiest hour."""
        return self.by_hour.index(self.most)

    @property
    def hours_unknown(self) -> int:
        """The number of unknown hours."""
        return sum(count is None for count in self.by_hour)


def count_by_hour(first: datetime) -> list[Series]:
    """Count events by name and hour; hours beyond the limit are unknown."""
    counts = _counts(first, _newest(first))
    unknown_until = -1
    if sum(counts.values()) == MOST_COUNTED:
        unknown_until = min(hour for _, hour in counts)
    return [
        Series(
            key,
            [
                sum(counts.get((name, hour), 0) for name in names)
                if hour > unknown_until
                else None
                for hour in range(HOURS)
            ],
        )
        for key, names in COUNTED.items()
    ]


def _newest(first: datetime) -> Subquery:
    return (
        select(SecurityEvent.name, SecurityEvent.at)
        .where(
            SecurityEvent.at >= first,
            SecurityEvent.name.in_([n for names in COUNTED.values() for n in names]),
        )
        .order_by(SecurityEvent.at.desc())
        .limit(MOST_COUNTED)
        .subquery()
    )


def _counts(first: datetime, newest: Subquery) -> dict[tuple[str, int], int]:
    ends = [(newest.c.at < first + (n + 1) * HOUR, n) for n in range(HOURS - 1)]
    hour = case(*ends, else_=HOURS - 1).label("hour")
    query = select(newest.c.name, hour, func.count()).group_by(newest.c.name, "hour")
    return {(name, hour): count for name, hour, count in db.session.execute(query)}
