"""Runs of jobs: rows of the database, from the request that adds one to its end.

A run is added in the transaction of the change that it belongs to, so neither is there
without the other. Huey only wakes a worker. The row has the arguments, counts the tries
and keeps the last error, so a run survives a worker that is killed.
"""

import random
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from blinker import Signal
from flask import has_request_context
from flask_login import current_user
from sqlalchemy import ForeignKey, Index, String, Text, delete, event, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Mapped, mapped_column

from bulwark.database import Encrypted, Model, UTCDateTime, db, utcnow
from bulwark.database.transactions import commit_after_request
from bulwark.jobs import rows, state

WAITING, RUNNING, DONE, FAILED = "waiting", "running", "done", "failed"
ERROR_LENGTH = 500
FIRST_WAIT, LONGEST_WAIT = 10, 3600  # seconds until the first retry, and at most
# A running job is seen every few seconds. After this, its worker must have been killed.
LOST_AFTER = timedelta(minutes=2)
LOST = "The worker stopped while the job ran."
DONE_KEPT, FAILED_KEPT = timedelta(days=1), timedelta(days=90)
SCHEDULED = uuid.UUID("0d2f7a52-54c1-4a0e-9a8e-2f1a2f1f6c77")

# Sent after each commit that makes a run due.
became_due = Signal()


class JobRun(Model):
    """One run of a job, with all of its tries."""

    __tablename__ = "background_runs"
    __table_args__ = (Index("ix_background_runs_state_due_at", "state", "due_at"),)

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    name: Mapped[str] = mapped_column(String(100), index=True)
    state: Mapped[str] = mapped_column(String(10))
    # The user whose request added it. Only they can follow its progress.
    owner_id: Mapped[int | None] = mapped_column(
        ForeignKey("users.id", ondelete="SET NULL"), index=True
    )
    # From `rows.pack`, None once done. Deferred: a tampered one stops no other run.
    arguments: Mapped[str | None] = mapped_column(Encrypted(Text()), deferred=True)
    is_scheduled: Mapped[bool] = mapped_column(default=False)
    tries: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime] = mapped_column(UTCDateTime)
    due_at: Mapped[datetime] = mapped_column(UTCDateTime)
    started_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    error: Mapped[str | None] = mapped_column(String(ERROR_LENGTH))

    @property
    def is_done(self) -> bool:
        """Whether it ended without an error."""
        return self.state == DONE

    @property
    def has_failed(self) -> bool:
        """Whether its last try failed."""
        return self.state == FAILED

    @property
    def progress(self) -> tuple[int, int] | None:
        """How much of how much the job has done, or None if it reports nothing."""
        found = state.recall(_progress_key(self.id))
        if isinstance(found, list) and [type(n) for n in found] == [int, int]:
            done, of = found
            return min(max(done, 0), max(of, 0)), max(of, 0)
        return None

    def to_dict(self) -> dict[str, Any]:
        """Return what its owner may know, as JSON values."""
        done, of = self.progress or (None, None)
        return {"id": self.id, "state": self.state, "done": done, "of": of}


# --- Adding -------------------------------------------------------------------


def add(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> JobRun:
    """Add a run to the current transaction; a request commits it at its end.

    Raises:
        rows.ArgumentError: an argument is an object.
    """
    arguments = rows.pack(name, args, kwargs)
    run = new(str(uuid.uuid4()), name, arguments)
    if has_request_context() and current_user.is_authenticated:
        run.owner_id = current_user.id
    db.session.add(run)
    wake_after_commit()
    commit_after_request()
    return run


def new(run_id: str, name: str, arguments: str) -> JobRun:
    """Return a run that is due now."""
    now = utcnow()
    return JobRun(
        id=run_id,
        name=name,
        state=WAITING,
        arguments=arguments,
        is_scheduled=False,
        tries=0,
        created_at=now,
        due_at=now,
    )


def add_scheduled(name: str) -> None:
    """Add the run of this minute, unless another worker did, or one is in progress."""
    minute = f"{utcnow():%Y-%m-%d %H:%M}"
    active = select(JobRun.id).where(
        JobRun.name == name, JobRun.is_scheduled, JobRun.state.in_((WAITING, RUNNING))
    )
    run_id = str(uuid.uuid5(SCHEDULED, f"{name} {minute}"))
    if db.session.scalar(active.limit(1)) or db.session.get(JobRun, run_id):
        return
    run = new(run_id, name, rows.pack(name, (), {}))
    run.is_scheduled = True
    db.session.add(run)
    wake_after_commit()
    try:
        db.session.commit()
    except IntegrityError:
        db.session.rollback()


def wake_after_commit() -> None:
    """Send `became_due` when the current transaction is committed."""
    event.listen(db.session(), "after_commit", became_due.send, once=True)


# --- Running ------------------------------------------------------------------


def is_any_due() -> bool:
    """Return whether a run is due."""
    due = select(JobRun.id).where(JobRun.state == WAITING, JobRun.due_at <= utcnow())
    return db.session.scalar(due.limit(1)) is not None


def claim() -> JobRun | None:
    """Claim the run that is due longest, so that no other worker starts it."""
    now = utcnow()
    due = select(JobRun.id).where(JobRun.state == WAITING, JobRun.due_at <= now)
    oldest = due.order_by(JobRun.due_at).limit(1)
    while (found := db.session.scalar(oldest)) is not None:
        statement = (
            update(JobRun)
            .where(JobRun.id == found, JobRun.state == WAITING)
            .values(state=RUNNING, tries=JobRun.tries + 1, started_at=now)
            .returning(JobRun.id)
            .execution_options(synchronize_session=False)
        )
        claimed = db.session.scalar(statement)
        db.session.commit()
        if claimed:
            saw(claimed)
            return db.session.get(JobRun, claimed, populate_existing=True)
    return None


def saw(run_id: str) -> None:
    """Store that a worker still runs it."""
    state.remember_time(_seen_key(run_id))


def end(run_id: str, tries: int, error: str, retries: int) -> JobRun | None:
    """Store how a try ended.

    Args:
        run_id: the run.
        tries: the number of this try; the end of an earlier one is ignored.
        error: why it failed, or "".
        retries: how many tries may follow the first one.

    Returns:
        the run if it will not be tried again.
    """
    # Another transaction ends it too if its worker was taken for lost.
    owned = select(JobRun).where(
        JobRun.id == run_id, JobRun.state == RUNNING, JobRun.tries == tries
    )
    run = db.session.scalar(owned.with_for_update())
    if run is None:
        db.session.rollback()
        return None
    run.error = error[:ERROR_LENGTH] or None
    if error and tries <= retries:
        run.state = WAITING
        run.due_at = utcnow() + wait_before(tries)
    else:
        run.state, run.finished_at = (FAILED if error else DONE), utcnow()
        if not error:
            run.arguments = None
        if run.is_scheduled:
            _forget_earlier_failures(run)
    db.session.commit()
    state.forget(_seen_key(run_id))
    if run.is_done:
        state.forget(_progress_key(run_id))
    return run if run.finished_at else None


def wait_before(tries: int) -> timedelta:
    """Return how long to wait after so many failed tries.

    It doubles, up to an hour, and is shortened at random by up to half: jobs that
    failed together for one reason don't all come back together.
    """
    longest = min(FIRST_WAIT * 2 ** min(tries - 1, 20), LONGEST_WAIT)
    return timedelta(seconds=longest * random.uniform(0.5, 1))  # noqa: S311


def lost() -> list[JobRun]:
    """Return the runs whose worker was killed."""
    limit = utcnow() - LOST_AFTER
    started = select(JobRun).where(JobRun.state == RUNNING, JobRun.started_at < limit)
    found = db.session.scalars(started).all()
    return [r for r in found if (state.recall_time(_seen_key(r.id)) or limit) <= limit]


def report_progress(run_id: str, done: int, of: int) -> None:
    """Store how much of how much is done, apart from the job's own transaction."""
    state.remember(_progress_key(run_id), [done, of])


# --- After the last try -------------------------------------------------------


def retry(run: JobRun) -> bool:
    """Queue a failed run again, with all of its tries; False if it is not failed."""
    return _leave_failed(
        run,
        update(JobRun).values(
            state=WAITING, tries=0, due_at=utcnow(), finished_at=None, error=None
        ),
    )


def discard(run: JobRun) -> bool:
    """Delete a failed run; return False if it is not failed."""
    state.forget(_progress_key(run.id))
    return _leave_failed(run, delete(JobRun))


def _leave_failed(run: JobRun, statement: Any) -> bool:
    mine = statement.where(JobRun.id == run.id, JobRun.state == FAILED)
    changed = db.session.scalar(
        mine.returning(JobRun.id).execution_options(synchronize_session=False)
    )
    wake_after_commit()
    return changed is not None


def forget_old() -> None:
    """Delete runs that ended long ago."""
    now = utcnow()
    for ended, kept in ((DONE, DONE_KEPT), (FAILED, FAILED_KEPT)):
        old = JobRun.finished_at < now - kept
        for run_id in db.session.scalars(
            select(JobRun.id).where(JobRun.state == ended, old)
        ):
            state.forget(_progress_key(run_id))
        db.session.execute(delete(JobRun).where(JobRun.state == ended, old))
    db.session.commit()


def _forget_earlier_failures(run: JobRun) -> None:
    """Keep the last failure of a schedule only, and none once it worked again."""
    db.session.execute(
        delete(JobRun)
        .where(
            JobRun.name == run.name,
            JobRun.is_scheduled,
            JobRun.state == FAILED,
            JobRun.id != run.id,
        )
        .execution_options(synchronize_session=False)
    )


def _seen_key(run_id: str) -> str:
    return f"job seen {run_id}"


def _progress_key(run_id: str) -> str:
    return f"job progress {run_id}"
