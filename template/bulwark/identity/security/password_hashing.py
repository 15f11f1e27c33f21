"""Limits password hashing to one hash at a time in each process, with a short queue.

Hashing is slow on purpose. Without a limit, sixteen connections that post sign-ins
occupy all threads and cores, and no other request gets a response.

The queue is ordered by trust: browsers that the account knows come first, then networks
with the fewest recent attempts. Known browsers have separate places. In the other
places, a more trusted request displaces a less trusted one. So guessing from many
networks, each within its limits, keeps out few users.
"""

import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from flask import g, has_request_context
from flask_login import current_user
from flask_security import Security
from flask_security import forms as stock_forms
from passlib.context import CryptContext
from werkzeug.exceptions import ServiceUnavailable

from bulwark.identity import peppers
from bulwark.web import rate_limits

T = TypeVar("T")

# Places in the queue. The other threads of the process serve all other requests.
KNOWN_PLACES = 2
OTHER_PLACES = 1
PATIENCE = 2.0  # seconds in the queue
RETRY_AFTER = 2  # seconds until a rejected client should retry
NICENESS = 10  # pages come before hashes; see the template's tests/benchmarks/storm.py

HALVED_AFTER = 30.0  # seconds after which the counts of all networks are halved
MOST_NETWORKS = 10_000  # that a process counts


class BoundedContext(CryptContext):  # type: ignore[misc]
    """Hashes and verifies passwords one at a time."""

    def hash(self, *args: Any, **options: Any) -> str:
        """Hash a password when its turn comes; the hash names its pepper."""
        return peppers.mark(str(_in_turn(super().hash, *args, **options)))

    def verify(self, *args: Any, **options: Any) -> bool:
        """Compare a password with a hash when its turn comes."""
        return bool(_in_turn(super().verify, *args, **options))


class Rank(NamedTuple):
    """The priority of a request; the smallest goes first."""

    unknown: bool  # whether the browser is unknown to the account
    tries: int  # recent attempts by the network


FIRST = Rank(unknown=False, tries=0)  # commands, and other calls outside a request


@dataclass(eq=False)
class _Turn:
    rank: Rank
    work: Callable[[], Any]
    result: Future[Any] = field(default_factory=Future)

    def run(self) -> None:
        if not self.result.set_running_or_notify_cancel():
            return
        try:
            self.result.set_result(self.work())
        except BaseException as error:  # noqa: BLE001  It is raised in the waiting thread.
            self.result.set_exception(error)

    def refuse(self) -> None:
        if self.result.set_running_or_notify_cancel():
            self.result.set_exception(ServiceUnavailable(retry_after=RETRY_AFTER))


class HashingQueue:
    """The queue of passwords to hash, in order of rank."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[_Turn] = []
        self._busy = False

    def has_place(self, rank: Rank) -> bool:
        """Return whether the queue accepts a request of this rank."""
        with self._lock:
            return not self._busy or self._place(rank) is not None

    def join(self, rank: Rank, work: Callable[[], T]) -> Future[T]:
        """Add a request, displacing one of lower rank if necessary; return its future.

        Raises:
            ServiceUnavailable: the queue is full of requests that go first.
        """
        turn = _Turn(rank, work)
        with self._lock:
            if not self._busy:
                self._busy = True
                _hasher.submit(self._work, turn)
                return turn.result
            place = self._place(rank)
            if place is None:
                raise ServiceUnavailable(retry_after=RETRY_AFTER)
            for other in place:
                self._waiting.remove(other)
                other.refuse()
            self._waiting.append(turn)
        return turn.result

    def leave(self, result: Future[Any]) -> bool:
        """Leave the queue; return whether the work had not started yet."""
        with self._lock:
            self._waiting = [
                turn for turn in self._waiting if turn.result is not result
            ]
        return result.cancel()

    def _place(self, rank: Rank) -> list[_Turn] | None:
        """Return the turns to displace for this rank; None if there is no place."""
        those = [turn for turn in self._waiting if turn.rank.unknown == rank.unknown]
        if len(those) < (OTHER_PLACES if rank.unknown else KNOWN_PLACES):
            return []
        last = max(those, key=lambda turn: turn.rank)
        return [last] if rank < last.rank else None

    def _work(self, turn: _Turn | None) -> None:
        while turn:
            turn.run()
            with self._lock:
                turn = min(self._waiting, key=lambda turn: turn.rank, default=None)
                if turn:
                    self._waiting.remove(turn)
                else:
                    self._busy = False


class AttemptCounter:
    """Counts the recent attempts of each network in this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._halved_at = time.monotonic()

    def count(self, network: str) -> int:
        """Count an attempt; return the number of earlier ones."""
        with self._lock:
            while (now := time.monotonic()) - self._halved_at > HALVED_AFTER:
                halves = {name: n // 2 for name, n in self._counts.items() if n > 1}
                self._counts = Counter(halves)
                self._halved_at = self._halved_at + HALVED_AFTER if halves else now
            before = self._counts[network]
            if before or len(self._counts) < MOST_NETWORKS:
                self._counts[network] += 1
            return before


def init_app(security: Security) -> None:
    """Replace Flask-Security's password context with the limited one.

    The form that changes a password must accept former peppers, too.
    """
    vars(stock_forms)["verify_password"] = peppers.verify_password
    bounded = BoundedContext()
    bounded.load(security.pwd_context)
    security.pwd_context = bounded


def refuse_when_full(*, known: bool) -> None:
    """Reject a request early if its password could not be hashed.

    Args:
        known: whether the account knows the browser. It applies to the whole request.

    Raises:
        ServiceUnavailable: the queue is full.
    """
    g.hashing_rank = Rank(not known, _attempts.count(rate_limits.network()))
    if not _queue.has_place(g.hashing_rank):
        raise ServiceUnavailable(retry_after=RETRY_AFTER)


def _in_turn(work: Callable[..., T], *args: Any, **options: Any) -> T:
    """Run `work` in the hashing thread and return its result.

    Raises:
        ServiceUnavailable: the queue is full, or the wait is too long.
    """
    turn = _queue.join(_rank(), lambda: work(*args, **options))
    try:
        return turn.result(PATIENCE)
    except TimeoutError:
        if _queue.leave(turn):
            raise ServiceUnavailable(retry_after=RETRY_AFTER) from None
        return turn.result()


def _rank() -> Rank:
    """Return the rank of this request; signed-in users are known."""
    if not has_request_context():
        return FIRST
    if "hashing_rank" not in g:
        unknown = not current_user.is_authenticated
        g.hashing_rank = Rank(unknown, _attempts.count(rate_limits.network()))
    rank: Rank = g.hashing_rank
    return rank


def _lower_priority() -> None:
    if sys.platform == "linux":
        os.nice(NICENESS)  # on Linux, it only applies to this thread: nice(2)


def _start() -> None:
    """Create the hashing thread, also after a fork, which does not copy threads."""
    global _hasher, _queue, _attempts  # noqa: PLW0603
    _hasher = ThreadPoolExecutor(1, "hasher", initializer=_lower_priority)
    _queue, _attempts = HashingQueue(), AttemptCounter()


_hasher: ThreadPoolExecutor
_queue: HashingQueue
_attempts: AttemptCounter
_start()
os.register_at_fork(after_in_child=_start)
