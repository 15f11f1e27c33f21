"""`@job`: functions that a worker runs later, within limits, and tries again.

@job(retries=5)
def send_report(user_id: int) -> None: ...

send_report(7)    # queued; it starts once the transaction is committed
"""

import re
import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Generic, ParamSpec

from huey import crontab

from bulwark.jobs import queue, runs
from bulwark.jobs.runs import JobRun

P = ParamSpec("P")

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
FIELDS = ("minute", "hour", "day", "month", "day_of_week")
BETWEEN_REPORTS = 0.5  # seconds

JOBS: dict[str, "Job[...]"] = {}


@dataclass
class Current:
    """The run of this thread, and when it last reported its progress."""

    run_id: str
    reported_at: float = float("-inf")


current_run: ContextVar[Current | None] = ContextVar("current_run", default=None)


@dataclass(frozen=True)
class Job(Generic[P]):
    """A job; call it to queue a run."""

    function: Callable[P, None]
    name: str
    retries: int
    time_limit: int
    memory_limit: int

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> JobRun:
        """Queue a run, which starts once the transaction is committed.

        Raises:
            ArgumentError: an argument is an object, such as a row: pass its id.
        """
        return runs.add(self.name, args, kwargs)


class Jobs:
    """`job`: the decorator, and what a running job reports."""

    def __call__(
        self,
        name: str = "",
        *,
        retries: int = 0,
        time_limit: int = 600,
        memory_limit: int = 256,
        schedule: str = "",
    ) -> Callable[[Callable[P, None]], Job[P]]:
        """Make a function a job.

        Args:
            name: what rows of the queue name it; by default the function's name. Keep
                it when you rename the function.
            retries: how many tries may follow a failed one. The first waits for about
                10 seconds, each further one twice as long, up to an hour.
            time_limit: seconds for one try.
            memory_limit: megabytes that it may need beside the service itself.
            schedule: when to run it without arguments, as five fields of cron in UTC:
                minute, hour, day, month, day of the week. `30 4 * * *` is each night.

        Raises:
            ValueError: the name is taken, or an argument is invalid.
        """

        def decorate(function: Callable[P, None]) -> Job[P]:
            made = Job(
                function,
                name or getattr(function, "__name__", ""),
                retries,
                time_limit,
                memory_limit,
            )
            _check(made)
            if schedule:
                _add_schedule(made.name, schedule)
            JOBS[made.name] = made
            return made

        return decorate

    def progress(self, done: int, of: int) -> None:
        """Report from a job how much of how much is done; outside one, do nothing.

        Call it as often as you like: it stores two reports a second at most.
        """
        current, now = current_run.get(), time.monotonic()
        if current is None:
            return
        if done >= of or now - current.reported_at >= BETWEEN_REPORTS:
            current.reported_at = now
            runs.report_progress(current.run_id, done, of)


job = Jobs()


def _check(made: "Job[...]") -> None:
    if not NAME.fullmatch(made.name):
        raise ValueError(
            f"{made.name!r} is not the name of a job: use letters, digits and _"
        )
    if made.name in JOBS:
        raise ValueError(f"there are two jobs with the name {made.name}: rename one")
    for what, value, least in (
        ("retries", made.retries, 0),
        ("time_limit", made.time_limit, 1),
        ("memory_limit", made.memory_limit, 1),
    ):
        if value < least:
            raise ValueError(f"{made.name}: {what} is {value}, and at least {least}")


def _add_schedule(name: str, schedule: str) -> None:
    fields = schedule.split()
    try:
        when = crontab(**dict(zip(FIELDS, fields, strict=True)), strict=True)
    except ValueError as error:
        wrong = error if len(fields) == len(FIELDS) else f"it has {len(fields)} fields"
        raise ValueError(
            f"{name}: {schedule!r} is not a schedule ({wrong}). Use five fields of"
            " cron, such as 30 4 * * *: minute, hour, day, month, day of the week"
        ) from None

    def add_scheduled_run() -> None:
        runs.add_scheduled(name)

    queue.periodic_task(when, name=f"schedule_{name}")(add_scheduled_run)
