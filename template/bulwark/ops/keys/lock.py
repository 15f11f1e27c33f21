"""One rotation at a time. A killed one releases the lock."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Engine, text

# Any number works that no other lock uses.
PG_LOCK = 0x62756C7761726C


class RotationRunningError(Exception):
    """Another process is rotating keys."""


@contextmanager
def one_rotation(engine: Engine) -> Iterator[None]:
    """Hold the database's lock for rotations.

    Raises:
        RotationRunningError: another process holds it.
    """
    if engine.dialect.name == "postgresql":
        # A lock of the transaction, not of the session: a pooler may share sessions.
        with engine.begin() as connection:
            query = text("SELECT pg_try_advisory_xact_lock(:lock)")
            if not connection.execute(query, {"lock": PG_LOCK}).scalar():
                raise RotationRunningError
            yield
        return
    if engine.url.database in (None, "", ":memory:"):
        yield  # no other process has this database
        return
    path = Path(str(engine.url.database)).with_suffix(".keys.lock")
    path.touch(0o600)
    with path.open("r") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RotationRunningError from None
        yield
