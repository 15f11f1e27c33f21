"""Scheduled checks of the audit trail, and the result of the last one."""

from dataclasses import asdict, dataclass
from datetime import datetime

from huey import crontab
from sqlalchemy import func, select

from bulwark.audit import events
from bulwark.audit.anchors import stored_anchors
from bulwark.audit.trail import AuditLink, Head
from bulwark.audit.verification import ChainBrokenError, verify
from bulwark.database import db, utcnow
from bulwark.jobs import queue
from bulwark.jobs.rows import RowRefusedError

RESULT_KEY = b"audit"  # of the last result, in the queue's storage


@dataclass(frozen=True)
class State:
    """The state of the trail, as far as it is known without reading all of it."""

    rows: int = 0
    fault: str = ""
    checked: datetime | None = None
    head: str = ""  # the last link that was checked


def state() -> State:
    """Return the number of rows ever written and the result of the last check."""
    rows = db.session.scalar(select(func.max(AuditLink.position))) or 0
    return State(**asdict(_last_result()) | {"rows": rows})


@queue.periodic_task(crontab(minute="2-59/5"), name="check_new_audit_rows")  # type: ignore[untyped-decorator]
def check_new() -> None:
    """Check the events recorded since the last check."""
    last = _last_result()
    if last.fault or not last.head:
        _check()
        return
    position, _, mac = last.head.partition(":")
    _check(since=Head(int(position), bytes.fromhex(mac)))


@queue.periodic_task(crontab(hour="4", minute="17"), name="check_audit_trail")  # type: ignore[untyped-decorator]
def check() -> None:
    """Check the whole trail."""
    _check()


def _check(since: Head | None = None) -> None:
    fault, head = "", since
    try:
        head = verify(stored_anchors(), since)
    except ChainBrokenError as error:
        fault = str(error)
        events.emit("sys_audit_broken", fault=fault)
    finally:
        db.session.rollback()
    result = {"fault": fault, "head": str(head or ""), "at": utcnow().isoformat()}
    queue.put(RESULT_KEY, result)


def _last_result() -> State:
    try:
        result = queue.get(RESULT_KEY, peek=True)
    except RowRefusedError:
        result = None  # This service did not write it: check the whole trail again.
    if result is None:
        return State()
    checked = datetime.fromisoformat(result["at"])
    return State(fault=result["fault"], checked=checked, head=result["head"])
