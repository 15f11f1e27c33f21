"""Anchors: links of the audit trail in a file, where the database can't change them."""

import os
from datetime import datetime
from pathlib import Path

from huey import crontab

from bulwark import settings
from bulwark.audit import events, trail
from bulwark.database import utcnow
from bulwark.jobs import queue


def stored_anchors() -> dict[int, bytes]:
    """Return the hashes in the anchor file, by position."""
    file = _file()
    lines = file.read_text().splitlines() if file.exists() else []
    heads = [line.split()[1].partition(":") for line in lines if len(line.split()) > 1]
    return {int(position): bytes.fromhex(mac) for position, _, mac in heads}


def lines_before(moment: datetime) -> list[str]:
    """Return the lines of the anchor file that were written before a moment."""
    file = _file()
    lines = file.read_text().splitlines(keepends=True) if file.exists() else []
    return [line for line in lines if line.strip() and _written_at(line) < moment]


def _written_at(line: str) -> datetime:
    return datetime.fromisoformat(line.split(maxsplit=1)[0])


@queue.periodic_task(crontab(minute="*/5"), name="anchor_audit_trail")  # type: ignore[untyped-decorator]
def anchor() -> None:
    """Write the newest link to the anchor file, outside the database."""
    head = trail.newest()
    if head is None or head.position in stored_anchors():
        return
    file = _file()
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(descriptor, "w") as out:
        out.write(f"{utcnow().isoformat(timespec='seconds')} {head}\n")
        out.flush()
        os.fsync(out.fileno())
    events.emit("sys_audit_anchored", row=head.position, mac=head.mac.hex())


def _file() -> Path:
    return Path(settings.current().audit_anchors)
