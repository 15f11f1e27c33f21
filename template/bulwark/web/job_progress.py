"""The progress of a job, for the user whose request queued it."""

from uuid import UUID

from flask_login import current_user
from sqlalchemy import select

from bulwark.database import db
from bulwark.jobs.runs import JobRun


def job_run(run_id: str | UUID) -> JobRun:
    """Return a run that the signed-in user queued.

    Raises:
        werkzeug.exceptions.NotFound: there is none, or someone else queued it.
    """
    owner = current_user.id if current_user.is_authenticated else None
    own = select(JobRun).where(JobRun.id == str(run_id), JobRun.owner_id == owner)
    run: JobRun = db.one_or_404(own.where(JobRun.owner_id.is_not(None)))
    return run
