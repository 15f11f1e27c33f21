"""The audit trail: security events as a chain, so that every change can be detected.

Each event gets a link in the transaction that records it: a keyed hash (HMAC-SHA-256)
of the event and of the previous link. Write access to the database is not enough to
create a link: it requires APP_ENCRYPTION_KEYS. Anchors reveal that rows were removed
from the end: the newest link is also logged with each event, and written to a file
beside the data.
"""

import hmac
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC
from functools import cache
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from sqlalchemy import (
    BigInteger,
    Integer,
    LargeBinary,
    Row,
    String,
    delete,
    insert,
    select,
    text,
)
from sqlalchemy.orm import Mapped, Session, mapped_column

from bulwark import settings
from bulwark.audit.events import SecurityEvent
from bulwark.database import Model, db

BEGINNING = bytes(32)  # the "previous link" of the first one
# Lets one writer at a time add links. Any number works that no other lock uses.
PG_LOCK = 0x62756C7761726B
# The columns that a link covers. Columns added later are not part of older links.
COVERED = (
    "id",
    "at",
    "name",
    "user_id",
    "actor_id",
    "address",
    "user_agent",
    "session",
    "request_id",
    "method",
    "route",
    "reason",
    "details",
)


class AuditLink(Model):
    """The position of an event in the chain. The table is append-only."""

    __tablename__ = "audit_chain"

    position: Mapped[int] = mapped_column(
        BigInteger().with_variant(Integer, "sqlite"),
        primary_key=True,
        autoincrement=False,
    )
    event_id: Mapped[int] = mapped_column(
        BigInteger().with_variant(Integer, "sqlite"), unique=True
    )
    key_id: Mapped[str] = mapped_column(String(64))
    mac: Mapped[bytes] = mapped_column(LargeBinary)


class AuditPermit(Model):
    """Triggers let a transaction change the trail only while it has a row here."""

    __tablename__ = "audit_permits"

    id: Mapped[int] = mapped_column(primary_key=True)


class Head(NamedTuple):
    """A link: its position and its hash."""

    position: int
    mac: bytes

    def __str__(self) -> str:
        return f"{self.position}:{self.mac.hex()}"


def add_links(
    session: Session, events: Iterable[SecurityEvent | Row[Any]]
) -> dict[int, Head]:
    """Add a link for each event; return them by the event's id."""
    if session.get_bind().dialect.name == "postgresql":
        # SQLite allows only one writer at a time anyway.
        session.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": PG_LOCK})
    key_id, key = next(iter(settings.current().encryption_keys.items()))
    head = newest() or Head(0, BEGINNING)
    links: dict[int, Head] = {}
    for event in events:
        position = head.position + 1
        mac = compute_mac(derive_chain_key(key), head.mac, position, event)
        links[event.id] = head = Head(position, mac)
    session.execute(
        insert(AuditLink),
        [
            {"position": p, "event_id": event_id, "key_id": key_id, "mac": mac}
            for event_id, (p, mac) in links.items()
        ],
    )
    return links


def adopt() -> int:
    """Link the events recorded before the trail existed; return how many there were."""
    if newest() is not None:
        return 0
    events = list(db.session.scalars(select(SecurityEvent).order_by(SecurityEvent.id)))
    return len(add_links(db.session(), events)) if events else 0


def newest() -> Head | None:
    """Return the last link of the chain."""
    query = select(AuditLink.position, AuditLink.mac)
    row = db.session.execute(query.order_by(AuditLink.position.desc()).limit(1)).first()
    return Head(*row) if row else None


@cache
def derive_chain_key(key: bytes) -> bytes:
    """Return the chain's key, derived from one of the encryption keys."""
    return HKDF(SHA256(), 32, salt=None, info=b"bulwark audit chain 1").derive(key)


def compute_mac(
    key: bytes, previous: bytes, position: int, event: SecurityEvent | Row[Any]
) -> bytes:
    """Return the hash of an event, its position and the previous link's hash."""
    values = {name: getattr(event, name) for name in COVERED}
    values["at"] = values["at"].astimezone(UTC).isoformat(timespec="microseconds")
    message = json.dumps([position, values], sort_keys=True, separators=(",", ":"))
    return hmac.digest(key, previous + message.encode(), "sha256")


@contextmanager
def unlocked() -> Iterator[None]:
    """Let the current transaction, and no other, change the append-only tables."""
    db.session.flush()
    permit = db.session.execute(insert(AuditPermit).returning(AuditPermit.id)).scalar()
    yield
    db.session.flush()
    db.session.execute(delete(AuditPermit).where(AuditPermit.id == permit))
