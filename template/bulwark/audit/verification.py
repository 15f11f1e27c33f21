"""Verification of the audit trail: find the first row that someone tampered with."""

import hmac
from collections.abc import Mapping
from contextlib import closing
from typing import Any

from sqlalchemy import Result, Row, select

from bulwark.audit.chain_keys import chain_keys
from bulwark.audit.events import SecurityEvent
from bulwark.audit.trail import (
    BEGINNING,
    COVERED,
    AuditLink,
    Head,
    compute_mac,
)
from bulwark.database import db

PRUNED = "sys_audit_pruned"  # this event records the last link that was deleted
ROWS_AT_ONCE = 1000


class ChainBrokenError(Exception):
    """The trail was changed; the message names the first such row."""


def verify(
    anchors: Mapping[int, bytes] | None = None, since: Head | None = None
) -> Head | None:
    """Check the trail against its links and the anchors; return its last link.

    Args:
        anchors: hashes of links from outside the database, by position.
        since: a link that was already checked; only later rows are read.

    Raises:
        ChainBrokenError: names the first row that was changed, removed, moved or added.
    """
    anchors = anchors or {}
    head = since or chain_start()
    if since:
        _refuse_replaced(since)
    keys = chain_keys()
    with closing(_links(head.position)) as links:
        for link in links:
            head = _verify_link(link, head, anchors, keys)
    _refuse_truncated(head, anchors)
    if not since:
        _refuse_unlinked()
    return head if head.position else None


def chain_start() -> Head:
    """Return the link that the first remaining row follows."""
    pruned = db.session.scalars(
        select(SecurityEvent.details)
        .where(SecurityEvent.name == PRUNED)
        .order_by(SecurityEvent.id.desc())
        .limit(1)
    ).first()
    if pruned is None:
        return Head(0, BEGINNING)
    return Head(int(pruned["row"]), bytes.fromhex(pruned["mac"]))


def _links(after: int) -> Result[Any]:
    covered = [getattr(SecurityEvent, name) for name in COVERED]
    query = (
        select(
            AuditLink.position,
            AuditLink.event_id,
            AuditLink.key_id,
            AuditLink.mac,
            *covered,
        )
        .join(SecurityEvent, SecurityEvent.id == AuditLink.event_id, isouter=True)
        .where(AuditLink.position > after)
        .order_by(AuditLink.position)
    )
    return db.session.execute(query.execution_options(yield_per=ROWS_AT_ONCE))


def _verify_link(
    link: Row[Any],
    previous: Head,
    anchors: Mapping[int, bytes],
    keys: Mapping[str, bytes],
) -> Head:
    """Check a link, and its event, against the previous link and the anchors."""
    _refuse_gap(link.position, previous.position + 1)
    row = f"row {link.position}"
    if link.id is None:
        raise ChainBrokenError(f"{row} is gone: event {link.event_id} was deleted")
    try:
        key = keys[link.key_id]
    except KeyError:
        raise ChainBrokenError(
            f"{row} needs the key {link.key_id!r}: it is not in APP_ENCRYPTION_KEYS"
        ) from None
    mac = compute_mac(key, previous.mac, link.position, link)
    if not hmac.compare_digest(mac, link.mac):
        raise ChainBrokenError(
            f"{row} is not as it was written: event {link.id},"
            f" {link.name} of {link.at:%Y-%m-%d %H:%M:%S} UTC, or its link was"
            " changed or moved"
        )
    if not hmac.compare_digest(anchors.get(link.position, mac), mac):
        raise ChainBrokenError(f"{row} does not match its anchor")
    return Head(link.position, mac)


def _refuse_replaced(head: Head) -> None:
    """Raise an error if a link that was already checked is not the stored one."""
    query = select(AuditLink.mac).where(AuditLink.position == head.position)
    if db.session.scalar(query) != head.mac:
        raise ChainBrokenError(f"row {head.position} is gone or was replaced")


def _refuse_gap(position: int, expected: int) -> None:
    if position != expected:
        last = position - 1
        rows = (
            f"row {expected} is"
            if last == expected
            else f"rows {expected} to {last} are"
        )
        raise ChainBrokenError(f"{rows} gone: the next one is {position}")


def _refuse_truncated(head: Head, anchors: Mapping[int, bytes]) -> None:
    """Raise an error if an anchor names a row after the last one."""
    if anchors and (last := max(anchors)) > head.position:
        raise ChainBrokenError(
            f"rows after {head.position} are gone: an anchor names row {last}"
        )


def _refuse_unlinked() -> None:
    """Raise an error if an event has no link."""
    unlinked = db.session.execute(
        select(SecurityEvent.id, SecurityEvent.name)
        .join(AuditLink, AuditLink.event_id == SecurityEvent.id, isouter=True)
        .where(AuditLink.position.is_(None))
        .order_by(SecurityEvent.id)
        .limit(1)
    ).first()
    if unlinked:
        raise ChainBrokenError(
            f"event {unlinked.id}, {unlinked.name}, has no row: it was added by hand"
        )
