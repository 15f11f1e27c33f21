"""One password at a time is hashed in each process, and few wait for their turn.

Hashing is slow on purpose. Without a bound, sixteen connections that post sign-ins take
all threads and cores, and nobody else is answered.

Who waits goes in order of trust: a browser that the account knows, then the network
that tried least lately. Known browsers wait in places of their own; in the others, a
request with more trust takes the place of one with less. So guessing from many
networks, each within its limits, keeps few people out.
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
from passlib.context import CryptContext
from werkzeug.exceptions import ServiceUnavailable

from bulwark import limits

T = TypeVar("T")

# One is hashed; so many wait. The other threads of a process serve everybody else.
KNOWN_PLACES = 2
OTHER_PLACES = 1
PATIENCE = 2.0  # seconds that one waits
RETRY_AFTER = 2  # seconds until the refused one should come again
NICENESS = 10  # a page is made before a hash; see the template's benchmark_storm.py

HALVED_AFTER = 30.0  # seconds in which half of a network's tries are forgotten
MOST_NETWORKS = 10_000  # whose tries a process remembers


class BoundedContext(CryptContext):  # type: ignore[misc]
    """Hashes and checks passwords, in turn."""

    def hash(self, *args: Any, **options: Any) -> str:
        """Hash a password when it is its turn."""
        return str(_in_turn(super().hash, *args, **options))

    def verify(self, *args: Any, **options: Any) -> bool:
        """Compare a password with a hash when it is its turn."""
        return bool(_in_turn(super().verify, *args, **options))


class Rank(NamedTuple):
    """Who goes first; the smaller rank does."""

    unknown: bool  # whether the account does not know the browser
    tries: int  # of the network, lately


FIRST = Rank(unknown=False, tries=0)  # a command, and what else is no request


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
        except BaseException as error:  # noqa: BLE001  It is raised where it is awaited.
            self.result.set_exception(error)

    def refuse(self) -> None:
        if self.result.set_running_or_notify_cancel():
            self.result.set_exception(ServiceUnavailable(retry_after=RETRY_AFTER))


class Line:
    """Those whose password is hashed next, in order of rank."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[_Turn] = []
        self._busy = False

    def has_place(self, rank: Rank) -> bool:
        """Tell whether somebody of this rank would be let in."""
        with self._lock:
            return not self._busy or self._place(rank) is not None

    def join(self, rank: Rank, work: Callable[[], T]) -> Future[T]:
        """Let somebody in, perhaps instead of somebody else; return the result to be.

        Raises:
            ServiceUnavailable: who waits already goes first.
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
        """Leave before the turn comes; tell whether it had not come yet."""
        with self._lock:
            self._waiting = [
                turn for turn in self._waiting if turn.result is not result
            ]
        return result.cancel()

    def _place(self, rank: Rank) -> list[_Turn] | None:
        """Return who has to leave for somebody of this rank; None if nobody would."""
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


class Tries:
    """How often each network had something hashed lately, in this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._halved_at = time.monotonic()

    def count(self, network: str) -> int:
        """Count a try, and return how many there were before it."""
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
    """Bound what Flask-Security hashes passwords with."""
    bounded = BoundedContext()
    bounded.load(security.pwd_context)
    security.pwd_context = bounded


def refuse_when_full(*, known: bool) -> None:
    """Refuse at once what would be refused later, after more work.

    Args:
        known: whether the account knows the browser. It counts for the whole request.

    Raises:
        ServiceUnavailable: all places are taken.
    """
    g.hashing_rank = Rank(not known, _tries.count(limits.network()))
    if not _line.has_place(g.hashing_rank):
        raise ServiceUnavailable(retry_after=RETRY_AFTER)


def _in_turn(work: Callable[..., T], *args: Any, **options: Any) -> T:
    """Return what `work` does in the one thread that hashes.

    Raises:
        ServiceUnavailable: others wait already, or it takes too long.
    """
    turn = _line.join(_rank(), lambda: work(*args, **options))
    try:
        return turn.result(PATIENCE)
    except TimeoutError:
        if _line.leave(turn):
            raise ServiceUnavailable(retry_after=RETRY_AFTER) from None
        return turn.result()


def _rank() -> Rank:
    """Return the rank of this request: who is signed in is known."""
    if not has_request_context():
        return FIRST
    if "hashing_rank" not in g:
        unknown = not current_user.is_authenticated
        g.hashing_rank = Rank(unknown, _tries.count(limits.network()))
    rank: Rank = g.hashing_rank
    return rank


def _step_back() -> None:
    if sys.platform == "linux":
        os.nice(NICENESS)  # there it is the thread's own: nice(2)


def _begin() -> None:
    """Make the thread that hashes; after a fork anew, for threads are not copied."""
    global _hasher, _line, _tries  # noqa: PLW0603
    _hasher = ThreadPoolExecutor(1, "hasher", initializer=_step_back)
    _line, _tries = Line(), Tries()


_hasher: ThreadPoolExecutor
_line: Line
_tries: Tries
_begin()
os.register_at_fork(after_in_child=_begin)
