"""The system status, for the overview, and what needs attention in it."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

from sqlalchemy import func, select

from bulwark.audit import checks
from bulwark.database import db, utcnow
from bulwark.jobs.state import recall_time
from bulwark.mail.outbox import OutgoingMail
from bulwark.observability.logging import log
from bulwark.ops import status
from bulwark.ops.backups import drill_results
from bulwark.ops.thresholds import (
    AUDIT_CHECK_AGE,
    BACKUP_AGE,
    DRILL_AGE,
    HEARTBEAT_AGE,
    LEAST_CERTIFICATE_LIFE,
    QUEUED_MAIL_AGE,
)

T = TypeVar("T")


@dataclass(frozen=True)
class SystemStatus:
    """The system status; None is unknown."""

    certificate: status.Certificate | None
    audit: checks.State | None
    mails: tuple[int, datetime | None] | None
    worker: datetime | None
    backup: datetime | None
    drills: drill_results.Results | None

    @property
    def concerns(self) -> dict[str, str]:
        """What needs attention, in words."""
        concerns = {
            "certificate": self._certificate_concern(),
            "audit": self._audit_concern(),
            "mails": self._mail_concern(),
            "worker": _late(self.worker, HEARTBEAT_AGE, "Not seen for 5 minutes."),
            "backup": _late(self.backup, BACKUP_AGE, "None for more than a day."),
            "drill": self._drill_concern(),
        }
        return {name: text for name, text in concerns.items() if text}

    def to_json(self) -> dict[str, Any]:
        """Return the status as JSON values."""
        certificate, audit, mails = self.certificate, self.audit, self.mails
        drills = self.drills
        return {
            "certificate": certificate
            and {
                "ends_at": certificate.ends.isoformat(),
                "days_left": certificate.days_left,
                "life_left": round(certificate.life_left, 3),
                "seen_at": certificate.seen.isoformat(),
            },
            "audit": audit
            and {
                "rows": audit.rows,
                "fault": audit.fault,
                "checked_at": _isoformat(audit.checked),
            },
            "mails": mails and {"waiting": mails[0], "oldest_at": _isoformat(mails[1])},
            "worker_seen_at": _isoformat(self.worker),
            "backup_at": _isoformat(self.backup),
            "restore_drill_at": drills and _isoformat(drills.passed_at),
            "concerns": self.concerns,
        }

    def _certificate_concern(self) -> str:
        if (
            self.certificate is None
            or self.certificate.life_left >= LEAST_CERTIFICATE_LIFE
        ):
            return ""
        if self.certificate.life_left == 0:
            return "It has expired."
        return "Its renewal is overdue."

    def _audit_concern(self) -> str:
        if self.audit is None:
            return ""
        if self.audit.fault:
            return f"It is broken: {self.audit.fault}."
        return _late(self.audit.checked, AUDIT_CHECK_AGE, "Not checked for an hour.")

    def _mail_concern(self) -> str:
        if self.mails is None or self.mails[1] is None:
            return ""
        return _late(
            self.mails[1], QUEUED_MAIL_AGE, "One is queued for over 15 minutes."
        )

    def _drill_concern(self) -> str:
        if self.drills is None:
            return ""
        if self.drills.failed:
            return "The last one failed."
        if self.drills.waiting_since is None:
            return ""
        since = self.drills.waiting_since
        return _late(since, DRILL_AGE, "None for more than 40 days.")


def read() -> SystemStatus:
    """Return the current status."""
    return SystemStatus(
        certificate=or_unknown(status.certificate),
        audit=or_unknown(checks.state),
        mails=or_unknown(_mails),
        worker=or_unknown(lambda: recall_time("sign of life")),
        backup=or_unknown(lambda: recall_time("backup")),
        drills=or_unknown(drill_results.read),
    )


def or_unknown(read: Callable[[], T]) -> T | None:
    """Call `read`; return None if it fails, so that the rest of the page is shown."""
    try:
        return read()
    except Exception:  # noqa: BLE001
        log.exception("overview_incomplete")
        db.session.rollback()
        return None


def _mails() -> tuple[int, datetime | None]:
    """Return the number of queued emails, and when the oldest was queued."""
    query = select(func.count(), func.min(OutgoingMail.created_at))
    waiting, oldest = db.session.execute(query).one()
    return waiting, oldest


def _late(last: datetime | None, patience: timedelta, message: str) -> str:
    """Return the message if the last time is missing or too long ago, else ""."""
    return message if last is None or utcnow() - last > patience else ""


def _isoformat(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None
