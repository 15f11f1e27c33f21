"""One password at a time is hashed in each process, and few wait for their turn.

Hashing is slow on purpose. Without a bound, sixteen connections that post sign-ins take
all threads and cores, and nobody else is answered.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flask_security import Security
from passlib.context import CryptContext
from werkzeug.exceptions import ServiceUnavailable

WAITING = 1  # beside the one that is hashed; the other threads serve everybody else
PATIENCE = 2.0  # seconds that one waits
RETRY_AFTER = 2  # seconds until the refused one should come again

_places = threading.BoundedSemaphore(1 + WAITING)
_turn = threading.Lock()


class BoundedContext(CryptContext):  # type: ignore[misc]
    """Hashes and checks passwords, in turn."""

    def hash(self, *args: Any, **options: Any) -> str:
        """Hash a password when it is its turn."""
        with _in_turn():
            return str(super().hash(*args, **options))

    def verify(self, *args: Any, **options: Any) -> bool:
        """Compare a password with a hash when it is its turn."""
        with _in_turn():
            return bool(super().verify(*args, **options))


def init_app(security: Security) -> None:
    """Bound what Flask-Security hashes passwords with."""
    bounded = BoundedContext()
    bounded.load(security.pwd_context)
    security.pwd_context = bounded


@contextmanager
def _in_turn() -> Iterator[None]:
    """Wait a little for the one turn there is.

    Raises:
        ServiceUnavailable: others wait already, or it takes too long.
    """
    if not _places.acquire(blocking=False):
        raise ServiceUnavailable(retry_after=RETRY_AFTER)
    try:
        if not _turn.acquire(timeout=PATIENCE):
            raise ServiceUnavailable(retry_after=RETRY_AFTER)
        try:
            yield
        finally:
            _turn.release()
    finally:
        _places.release()
