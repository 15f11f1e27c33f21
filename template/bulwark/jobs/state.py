"""State that all processes share, such as the time of the last backup.

It is stored in the queue's key-value table.
"""

import json
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from huey.constants import EmptyData

from bulwark.jobs import queue


def remember(key: str, value: object) -> None:
    """Store a value as JSON, in place of an earlier one."""
    queue.storage.put_data(key.encode(), json.dumps(value).encode())


def recall(key: str) -> Any:
    """Return the stored value, or None."""
    with suppress(ValueError, RecursionError):
        return json.loads(_stored(key))
    return None


def remember_time(key: str) -> None:
    """Store the current time, such as that of the last backup."""
    queue.storage.put_data(key.encode(), datetime.now(UTC).isoformat().encode())


def recall_time(key: str) -> datetime | None:
    """Return the stored time, or None."""
    with suppress(ValueError):
        return datetime.fromisoformat(_stored(key))
    return None


def forget(key: str) -> None:
    """Delete a stored value, if there is one."""
    queue.storage.delete_data(key.encode())


def _stored(key: str) -> str:
    """Return a stored text, or "". It is unsigned: anyone may have written it."""
    found = queue.storage.peek_data(key.encode())
    return "" if found is EmptyData else bytes(found).decode(errors="replace")
