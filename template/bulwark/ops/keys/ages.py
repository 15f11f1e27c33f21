"""Since when the service has had each key."""

from datetime import datetime

from huey import crontab

from bulwark import crypto, settings
from bulwark.database import utcnow
from bulwark.jobs import queue
from bulwark.jobs.rows import RowRefusedError

STORED = b"keys"  # the times of first use, in the queue's storage, signed
MARK_BYTES = 8


def current_keys() -> dict[str, bytes]:
    """Return the keys in use, by the name that `flask keys` uses."""
    config = settings.current()
    return {
        "encryption": next(iter(config.encryption_keys.values())),
        "signing": config.secret_key.encode(),
        "pepper": config.password_pepper.encode(),
    }


def record() -> None:
    """Store the current time for each key that is new."""
    marks = {name: _mark(key) for name, key in current_keys().items()}
    known, now = _stored(), utcnow().isoformat()
    if not known.keys() >= set(marks.values()):
        queue.put(STORED, {mark: known.get(mark, now) for mark in marks.values()})


@queue.periodic_task(crontab(minute="41"), name="record_keys")  # type: ignore[untyped-decorator]
def _record_each_hour() -> None:
    record()


def since() -> dict[str, datetime | None]:
    """Return since when each key has been in use; None if it is not recorded yet."""
    known = _stored()
    times = {name: known.get(_mark(key)) for name, key in current_keys().items()}
    return {
        name: datetime.fromisoformat(at) if at else None for name, at in times.items()
    }


def _mark(key: bytes) -> str:
    """Return a fingerprint, which reveals nothing about a random key."""
    return crypto.derive(key, "bulwark keys, mark of a key")[:MARK_BYTES].hex()


def _stored() -> dict[str, str]:
    try:
        stored = queue.get(STORED, peek=True)
    except RowRefusedError:
        return {}  # This service did not write it.
    return stored if isinstance(stored, dict) else {}
