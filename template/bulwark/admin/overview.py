"""The overview: the events of the last 24 hours, and the system status.

It serves installations without other monitoring. All data comes from the database and
from what the worker stored, so the page never waits for another system. Data that can't
be read is shown as unknown.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

from flask import jsonify, render_template
from flask.typing import ResponseReturnValue
from sqlalchemy import Select, case, func, select

from bulwark.admin.confirmation import blueprint
from bulwark.admin.history import facts_of_events, plain
from bulwark.audit import trail
from bulwark.audit.catalogue import CATALOGUE
from bulwark.audit.events import SecurityEvent
from bulwark.database import db, utcnow
from bulwark.jobs.state import recall_time
from bulwark.mail.outbox import OutgoingMail
from bulwark.observability.logging import log
from bulwark.ops import status
from bulwark.ops.health import MAIL_MAY_WAIT, SILENCE
from bulwark.ops.status import HOUR, HOURS
from bulwark.web.access import permission
from bulwark.web.errors import wants_json

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
# Counting stops here, so that a flood of events does not slow down this page.
MOST_COUNTED = 200_000
LATEST = 8
# The same thresholds as the alerts in deploy/monitoring.
LEAST_LIFE = 0.25
CHECK_MAY_WAIT = timedelta(hours=1)
BACKUP_MAY_WAIT = timedelta(hours=26)

Found = TypeVar("Found")


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


@dataclass(frozen=True)
class Standing:
    """The system status; None is unknown."""

    certificate: status.Certificate | None
    audit: trail.State | None
    mails: tuple[int, datetime | None] | None
    worker: datetime | None
    backup: datetime | None

    @property
    def concerns(self) -> dict[str, str]:
        """What needs attention, in words."""
        found = {
            "certificate": self._of_certificate(),
            "audit": self._of_audit(),
            "mails": self._of_mails(),
            "worker": _late(self.worker, SILENCE, "Not seen for 5 minutes."),
            "backup": _late(self.backup, BACKUP_MAY_WAIT, "None for more than a day."),
        }
        return {name: said for name, said in found.items() if said}

    def _of_certificate(self) -> str:
        if self.certificate is None or self.certificate.life_left >= LEAST_LIFE:
            return ""
        if self.certificate.life_left == 0:
            return "It has expired."
        return "Its renewal is overdue."

    def _of_audit(self) -> str:
        if self.audit is None:
            return ""
        if self.audit.fault:
            return f"It is broken: {self.audit.fault}."
        return _late(self.audit.checked, CHECK_MAY_WAIT, "Not checked for an hour.")

    def _of_mails(self) -> str:
        if self.mails is None or self.mails[1] is None:
            return ""
        return _late(self.mails[1], MAIL_MAY_WAIT, "One is queued for over 15 minutes.")


@blueprint.get("")
@permission("users:read")
def overview() -> ResponseReturnValue:
    """Show the last 24 hours, and the system status."""
    first = status.first_hour()
    hours = [first + number * HOUR for number in range(HOURS)]
    series = [*_series(first), Series("server_errors", _errors(hours))]
    standing = _standing()
    latest = facts_of_events(db.session.scalars(_noteworthy(first)).all())
    if wants_json():
        return jsonify(
            hours=[hour.isoformat() for hour in hours],
            counts={one.key: one.by_hour for one in series},
            **_plain(standing),
            events=plain(latest),
        )
    return render_template(
        "bulwark/admin/overview.html",
        hours=hours,
        series=series,
        standing=standing,
        concerns=standing.concerns,
        events=latest,
        hour_long=HOUR,
        most_counted=MOST_COUNTED,
    )


def _series(first: datetime) -> list[Series]:
    """Count events by name and hour; hours beyond the limit are unknown."""
    newest = (
        select(SecurityEvent.name, SecurityEvent.at)
        .where(
            SecurityEvent.at >= first,
            SecurityEvent.name.in_([n for names in COUNTED.values() for n in names]),
        )
        .order_by(SecurityEvent.at.desc())
        .limit(MOST_COUNTED)
        .subquery()
    )
    ends = [(newest.c.at < first + (n + 1) * HOUR, n) for n in range(HOURS - 1)]
    hour = case(*ends, else_=HOURS - 1).label("hour")
    query = select(newest.c.name, hour, func.count()).group_by(newest.c.name, "hour")
    found = {(name, hour): count for name, hour, count in db.session.execute(query)}
    stopped = -1
    if sum(found.values()) == MOST_COUNTED:
        stopped = min(hour for _, hour in found)
    return [
        Series(
            key,
            [
                sum(found.get((name, hour), 0) for name in names)
                if hour > stopped
                else None
                for hour in range(HOURS)
            ],
        )
        for key, names in COUNTED.items()
    ]


def _errors(hours: Sequence[datetime]) -> list[int | None]:
    counted = _unless_unknown(status.errors_by_hour) or {}
    return [counted.get(hour) for hour in hours]


def _noteworthy(first: datetime) -> Select[SecurityEvent]:
    """Return a query of the newest warnings that no series counts."""
    counted = {name for names in COUNTED.values() for name in names}
    names = [
        name
        for name, kind in CATALOGUE.items()
        if kind.level >= logging.WARNING and name not in counted
    ]
    return (
        select(SecurityEvent)
        .where(SecurityEvent.at >= first, SecurityEvent.name.in_(names))
        .order_by(SecurityEvent.at.desc(), SecurityEvent.id.desc())
        .limit(LATEST)
    )


def _standing() -> Standing:
    return Standing(
        certificate=_unless_unknown(status.certificate),
        audit=_unless_unknown(trail.state),
        mails=_unless_unknown(_mails),
        worker=_unless_unknown(lambda: recall_time("sign of life")),
        backup=_unless_unknown(lambda: recall_time("backup")),
    )


def _mails() -> tuple[int, datetime | None]:
    """Return the number of queued emails, and when the oldest was queued."""
    query = select(func.count(), func.min(OutgoingMail.created_at))
    waiting, oldest = db.session.execute(query).one()
    return waiting, oldest


def _unless_unknown(look: Callable[[], Found]) -> Found | None:
    """Call `look`; return None if it fails, so that the rest of the page is shown."""
    try:
        return look()
    except Exception:  # noqa: BLE001
        log.exception("overview_incomplete")
        db.session.rollback()
        return None


def _late(last: datetime | None, patience: timedelta, said: str) -> str:
    """Return the message if the last time is missing or too long ago, else ""."""
    return said if last is None or utcnow() - last > patience else ""


def _plain(standing: Standing) -> dict[str, Any]:
    """Return the system status as JSON values."""
    certificate, trail, mails = standing.certificate, standing.audit, standing.mails
    return {
        "certificate": certificate
        and {
            "ends_at": certificate.ends.isoformat(),
            "days_left": certificate.days_left,
            "life_left": round(certificate.life_left, 3),
            "seen_at": certificate.seen.isoformat(),
        },
        "audit": trail
        and {
            "rows": trail.rows,
            "fault": trail.fault,
            "checked_at": _moment(trail.checked),
        },
        "mails": mails and {"waiting": mails[0], "oldest_at": _moment(mails[1])},
        "worker_seen_at": _moment(standing.worker),
        "backup_at": _moment(standing.backup),
        "concerns": standing.concerns,
    }


def _moment(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None
