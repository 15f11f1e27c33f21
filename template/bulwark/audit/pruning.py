"""Pruning of the audit trail: delete old rows, so that the rest can be verified."""

from contextlib import suppress
from datetime import datetime, timedelta

from huey import crontab
from sqlalchemy import delete, func, select

from bulwark import settings
from bulwark.audit import events
from bulwark.audit.anchors import stored_anchors
from bulwark.audit.events import SecurityEvent
from bulwark.audit.trail import AuditLink, Head, unlocked
from bulwark.audit.verification import PRUNED, ChainBrokenError, chain_start, verify
from bulwark.database import db, utcnow
from bulwark.jobs import queue


@queue.periodic_task(crontab(hour="4", minute="47"), name="prune_audit_trail")  # type: ignore[untyped-decorator]
def prune_expired() -> None:
    """Delete rows older than APP_AUDIT_DAYS, unless the trail is broken."""
    if days := settings.current().audit_days:
        with suppress(ChainBrokenError):  # the checks report it
            prune(utcnow() - timedelta(days=days), "APP_AUDIT_DAYS")


def prune(before: datetime, reason: str) -> Head | None:
    """Delete rows from before a time; return the last deleted link, if there is one.

    The rest can still be verified: an event, which is part of the chain, records the
    link that the first remaining row follows.

    Raises:
        ChainBrokenError: the trail is broken; deleting would hide where.
    """
    head = verify(stored_anchors())
    if head is None:
        return None
    last = _last_before(before, head.position)
    if last <= chain_start().position:
        return None
    link = db.session.get_one(AuditLink, last)
    deleted = Head(link.position, link.mac)
    _delete_up_to(last)
    events.record(PRUNED, reason=reason, row=deleted.position, mac=deleted.mac.hex())
    db.session.commit()
    return deleted


def _last_before(moment: datetime, newest: int) -> int:
    """Return the position of the last row to delete.

    Stop at the first newer row: later rows may be dated too early by a wrong clock.
    Keep the newest row: the next link follows it, and SQLite would reuse its number.
    """
    first_newer = db.session.scalar(
        select(func.min(AuditLink.position))
        .join(SecurityEvent, SecurityEvent.id == AuditLink.event_id)
        .where(SecurityEvent.at >= moment)
    )
    return (first_newer or newest) - 1


def _delete_up_to(position: int) -> None:
    old = select(AuditLink.event_id).where(AuditLink.position <= position)
    with unlocked():
        db.session.execute(
            delete(SecurityEvent)
            .where(SecurityEvent.id.in_(old))
            .execution_options(synchronize_session=False)
        )
        db.session.execute(
            delete(AuditLink)
            .where(AuditLink.position <= position)
            .execution_options(synchronize_session=False)
        )
