"""The audit trail: security events as a chain, so that every change can be detected.

Each event gets a link in the transaction that records it: a keyed hash (HMAC-SHA-256)
of the event and of the previous link. Write access to the database is not enough to
create a link: it requires APP_ENCRYPTION_KEYS. Anchors reveal that rows were removed
from the end: the newest link is also logged with each event, and written to a file
beside the data.
"""

import hmac
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from huey import crontab
from sqlalchemy import (
    BigInteger,
    Integer,
    LargeBinary,
    Result,
    Row,
    Select,
    String,
    delete,
    event,
    func,
    insert,
    inspect,
    select,
    text,
)
from sqlalchemy.orm import Mapped, Session, mapped_column

from bulwark import settings
from bulwark.audit import events
from bulwark.audit.events import SecurityEvent
from bulwark.database import Model, db, utcnow
from bulwark.jobs import queue
from bulwark.jobs.rows import RowRefusedError

BEGINNING = bytes(32)  # the "previous link" of the first one
PRUNED = "sys_audit_pruned"
# Lets one writer at a time add links. Any number works that no other lock uses.
PG_LOCK = 0x62756C7761726B
NOTE = b"audit"
AT_ONCE = 1000  # rows to fetch at a time
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


@dataclass(frozen=True)
class State:
    """What is known about the trail without reading all of it."""

    rows: int = 0
    fault: str = ""
    checked: datetime | None = None
    head: str = ""  # the last link that was checked


class ChainBrokenError(Exception):
    """The trail was changed; the message names the first such row."""


@event.listens_for(db.session, "before_commit")
def _link(session: Session) -> None:
    """Link the transaction's events; if that fails, so does the transaction."""
    if session.in_nested_transaction():
        return
    session.flush()
    recorded = [new for new, _ in session.info.get("events", ())]
    new = [event for event in recorded if inspect(event).persistent]
    if new:
        session.info["links"] = _add_links(session, new)


def _add_links(
    session: Session, events: Iterable[SecurityEvent | Row[Any]]
) -> dict[int, Head]:
    """Add a link for each event; return them by the event's id."""
    if session.get_bind().dialect.name == "postgresql":
        # SQLite allows only one writer at a time anyway.
        session.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": PG_LOCK})
    key_id = next(iter(settings.current().encryption_keys))
    head = _newest() or Head(0, BEGINNING)
    links: dict[int, Head] = {}
    for found in events:
        position = head.position + 1
        head = Head(position, _mac(_key(key_id), head.mac, position, found))
        links[found.id] = head
    session.execute(
        insert(AuditLink),
        [
            {"position": p, "event_id": event_id, "key_id": key_id, "mac": mac}
            for event_id, (p, mac) in links.items()
        ],
    )
    return links


def _newest() -> Head | None:
    newest = select(AuditLink.position, AuditLink.mac).order_by(
        AuditLink.position.desc()
    )
    found = db.session.execute(newest.limit(1)).first()
    return Head(*found) if found else None


def _key(key_id: str) -> bytes:
    """Return the chain's key, derived from one of the encryption keys.

    Raises:
        ChainBrokenError: the encryption key was removed.
    """
    key = settings.current().encryption_keys.get(key_id)
    if key is None:
        raise ChainBrokenError(
            f"needs the key {key_id!r}: it is not in APP_ENCRYPTION_KEYS"
        )
    return _derived(key)


@cache
def _derived(key: bytes) -> bytes:
    return HKDF(SHA256(), 32, salt=None, info=b"bulwark audit chain 1").derive(key)


def _mac(
    key: bytes, before: bytes, position: int, found: SecurityEvent | Row[Any]
) -> bytes:
    values = {name: getattr(found, name) for name in COVERED}
    values["at"] = values["at"].astimezone(UTC).isoformat(timespec="microseconds")
    told = json.dumps([position, values], sort_keys=True, separators=(",", ":"))
    return hmac.digest(key, before + told.encode(), "sha256")


# --- Finding what was changed -------------------------------------------------------


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
    head = since or _start()
    if (
        since
        and db.session.scalar(
            select(AuditLink.mac).where(AuditLink.position == since.position)
        )
        != since.mac
    ):
        raise ChainBrokenError(f"row {since.position} is gone or was replaced")
    with closing(_links(head.position)) as links:
        for link in links:
            _expect(link.position, head.position + 1)
            where = f"row {link.position}"
            if link.id is None:
                raise ChainBrokenError(
                    f"{where} is gone: event {link.event_id} was deleted"
                )
            try:
                mac = _mac(_key(link.key_id), head.mac, link.position, link)
            except ChainBrokenError as error:
                raise ChainBrokenError(f"{where} {error}") from None
            if not hmac.compare_digest(mac, link.mac):
                raise ChainBrokenError(
                    f"{where} is not as it was written: event {link.id},"
                    f" {link.name} of {link.at:%Y-%m-%d %H:%M:%S} UTC, or its link was"
                    " changed or moved"
                )
            if not hmac.compare_digest(anchors.get(link.position, mac), mac):
                raise ChainBrokenError(f"{where} does not match its anchor")
            head = Head(link.position, mac)
    if anchors and (last := max(anchors)) > head.position:
        raise ChainBrokenError(
            f"rows after {head.position} are gone: an anchor names row {last}"
        )
    if not since:
        _refuse_strangers()
    return head if head.position else None


def _start() -> Head:
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
    return db.session.execute(query.execution_options(yield_per=AT_ONCE))


def _expect(position: int, wanted: int) -> None:
    if position != wanted:
        last = position - 1
        rows = f"row {wanted} is" if last == wanted else f"rows {wanted} to {last} are"
        raise ChainBrokenError(f"{rows} gone: the next one is {position}")


def _refuse_strangers() -> None:
    """Raise an error if an event has no link."""
    stranger = db.session.execute(
        select(SecurityEvent.id, SecurityEvent.name)
        .join(AuditLink, AuditLink.event_id == SecurityEvent.id, isouter=True)
        .where(AuditLink.position.is_(None))
        .order_by(SecurityEvent.id)
        .limit(1)
    ).first()
    if stranger:
        raise ChainBrokenError(
            f"event {stranger.id}, {stranger.name}, has no row: it was added by hand"
        )


# --- Anchors and scheduled checks ---------------------------------------------------


def anchors() -> dict[int, bytes]:
    """Return the hashes in the anchor file, by position."""
    file = _anchor_file()
    lines = file.read_text().splitlines() if file.exists() else []
    found = [line.split()[1].partition(":") for line in lines if len(line.split()) > 1]
    return {int(position): bytes.fromhex(mac) for position, _, mac in found}


def _anchor_file() -> Path:
    return Path(settings.current().audit_anchors)


@queue.periodic_task(crontab(minute="*/5"), name="anchor_audit_trail")  # type: ignore[untyped-decorator]
def anchor() -> None:
    """Write the newest link to the anchor file, outside the database."""
    head = _newest()
    if head is None or head.position in anchors():
        return
    file = _anchor_file()
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(descriptor, "w") as out:
        out.write(f"{utcnow().isoformat(timespec='seconds')} {head}\n")
        out.flush()
        os.fsync(out.fileno())
    events.emit("sys_audit_anchored", row=head.position, mac=head.mac.hex())


@queue.periodic_task(crontab(minute="2-59/5"), name="check_new_audit_rows")  # type: ignore[untyped-decorator]
def check_new() -> None:
    """Check the events recorded since the last check."""
    known = _known()
    if known.fault or not known.head:
        _check()
        return
    position, _, mac = known.head.partition(":")
    _check(since=Head(int(position), bytes.fromhex(mac)))


@queue.periodic_task(crontab(hour="4", minute="17"), name="check_audit_trail")  # type: ignore[untyped-decorator]
def check() -> None:
    """Check the whole trail."""
    _check()


def _check(since: Head | None = None) -> None:
    fault, head = "", since
    try:
        head = verify(anchors(), since)
    except ChainBrokenError as error:
        fault = str(error)
        events.emit("sys_audit_broken", fault=fault)
    finally:
        db.session.rollback()
    told = {"fault": fault, "head": str(head or ""), "at": utcnow().isoformat()}
    queue.put(NOTE, told)


def _known() -> State:
    try:
        told = queue.get(NOTE, peek=True)
    except RowRefusedError:
        told = None  # This service did not write it: check the whole trail again.
    if told is None:
        return State()
    moment = datetime.fromisoformat(told["at"])
    return State(fault=told["fault"], checked=moment, head=told["head"])


def state() -> State:
    """Return the number of rows ever written and the result of the last check."""
    rows = db.session.scalar(select(func.max(AuditLink.position))) or 0
    return State(**asdict(_known()) | {"rows": rows})


# --- Export -------------------------------------------------------------------------


def rows_of(query: Select[SecurityEvent]) -> Iterator[str]:
    """Yield the selected events with their links as JSON, oldest first.

    Only a few are in memory at a time. A row contains all that its link covers.
    """
    linked = AuditLink.event_id == SecurityEvent.id
    rows = query.join(AuditLink, linked).add_columns(AuditLink)
    rows = rows.order_by(None).order_by(AuditLink.position)
    for found, link in db.session.execute(rows.execution_options(yield_per=AT_ONCE)):
        row = {name: getattr(found, name) for name in COVERED}
        row["at"] = found.at.isoformat(timespec="microseconds")
        yield json.dumps({"row": link.position, **row, "mac": link.mac.hex()})


# --- Adopting and pruning events ----------------------------------------------------


def adopt() -> int:
    """Link the events recorded before the trail existed; return how many there were."""
    if _newest() is not None:
        return 0
    found = list(db.session.scalars(select(SecurityEvent).order_by(SecurityEvent.id)))
    return len(_add_links(db.session(), found)) if found else 0


@contextmanager
def unlocked() -> Iterator[None]:
    """Let the current transaction, and no other, change the append-only tables."""
    db.session.flush()
    permit = db.session.execute(insert(AuditPermit).returning(AuditPermit.id)).scalar()
    yield
    db.session.flush()
    db.session.execute(delete(AuditPermit).where(AuditPermit.id == permit))


@queue.periodic_task(crontab(hour="4", minute="47"), name="prune_audit_trail")  # type: ignore[untyped-decorator]
def forget() -> None:
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
    newest = verify(anchors())
    if newest is None:
        return None
    # Stop at the first newer row: later rows may be dated too early by a wrong clock.
    # Keep the newest row: the next link follows it, and SQLite would reuse its number.
    kept = db.session.scalar(
        select(func.min(AuditLink.position))
        .join(SecurityEvent, SecurityEvent.id == AuditLink.event_id)
        .where(SecurityEvent.at >= before)
    )
    last = (kept or newest.position) - 1
    if last <= _start().position:
        return None
    link = db.session.get_one(AuditLink, last)
    head = Head(link.position, link.mac)
    old = select(AuditLink.event_id).where(AuditLink.position <= last)
    with unlocked():
        db.session.execute(
            delete(SecurityEvent)
            .where(SecurityEvent.id.in_(old))
            .execution_options(synchronize_session=False)
        )
        db.session.execute(
            delete(AuditLink)
            .where(AuditLink.position <= last)
            .execution_options(synchronize_session=False)
        )
    events.record(PRUNED, reason=reason, row=head.position, mac=head.mac.hex())
    db.session.commit()
    return head
