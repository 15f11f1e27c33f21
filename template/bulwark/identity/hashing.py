"""One password at a time is hashed in each process, and few wait for their turn.

Hashing is slow on purpose. Without a bound, sixteen connections that post sign-ins take
all threads and cores, and nobody else is answered.
"""

import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from flask_security import Security
from passlib.context import CryptContext
from werkzeug.exceptions import ServiceUnavailable

T = TypeVar("T")

PLACES = 2  # one is hashed, one waits; the other threads serve everybody else
PATIENCE = 2.0  # seconds that one waits
RETRY_AFTER = 2  # seconds until the refused one should come again
NICENESS = 10  # a page is made before a hash; see the template's benchmark_storm.py

_places = threading.BoundedSemaphore(PLACES)


class BoundedContext(CryptContext):  # type: ignore[misc]
    """Hashes and checks passwords, in turn."""

    def hash(self, *args: Any, **options: Any) -> str:
        """Hash a password when it is its turn."""
        return str(_in_turn(super().hash, *args, **options))

    def verify(self, *args: Any, **options: Any) -> bool:
        """Compare a password with a hash when it is its turn."""
        return bool(_in_turn(super().verify, *args, **options))


def init_app(security: Security) -> None:
    """Bound what Flask-Security hashes passwords with."""
    bounded = BoundedContext()
    bounded.load(security.pwd_context)
    security.pwd_context = bounded


def refuse_when_full() -> None:
    """Refuse at once what would be refused later, after more work.

    Raises:
        ServiceUnavailable: all places are taken.
    """
    if not _places.acquire(blocking=False):
        raise ServiceUnavailable(retry_after=RETRY_AFTER)
    _places.release()


def _in_turn(work: Callable[..., T], *args: Any, **options: Any) -> T:
    """Return what `work` does in the one thread that hashes.

    Raises:
        ServiceUnavailable: others wait already, or it takes too long.
    """
    if not _places.acquire(blocking=False):
        raise ServiceUnavailable(retry_after=RETRY_AFTER)
    turn = _hasher.submit(work, *args, **options)
    turn.add_done_callback(lambda _: _places.release())
    try:
        return turn.result(PATIENCE)
    except TimeoutError:
        if turn.cancel():
            raise ServiceUnavailable(retry_after=RETRY_AFTER) from None
        return turn.result()


def _step_back() -> None:
    if sys.platform == "linux":
        os.nice(NICENESS)  # there it is the thread's own: nice(2)


def _make_hasher() -> None:
    """Make the thread that hashes; after a fork anew, for threads are not copied."""
    global _hasher  # noqa: PLW0603
    _hasher = ThreadPoolExecutor(1, "hasher", initializer=_step_back)


_hasher: ThreadPoolExecutor
_make_hasher()
os.register_at_fork(after_in_child=_make_hasher)
