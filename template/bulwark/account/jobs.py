"""The progress of a job that the user queued, for the scripts of pages."""

from uuid import UUID

from flask import jsonify
from flask.typing import ResponseReturnValue

from bulwark.account.blueprint import blueprint
from bulwark.web.access import signed_in
from bulwark.web.job_progress import job_run


@blueprint.get("/account/jobs/<uuid:run_id>")
@signed_in
def job_progress(run_id: UUID) -> ResponseReturnValue:
    """Return the state and the progress of a run as JSON."""
    return jsonify(job_run(run_id).to_dict())
