"""Jobs that failed at their last try: view, retry and discard them."""

import json
from typing import Any
from uuid import UUID

from flask import abort, jsonify, render_template, url_for
from flask.typing import ResponseReturnValue
from flask_login import current_user
from sqlalchemy import func, select

from bulwark import crypto
from bulwark.admin.confirmation import FORM, PAGE, ReasonForm, act, blueprint
from bulwark.audit import events
from bulwark.database import db
from bulwark.identity.authorization import RefusedError
from bulwark.identity.models import BaseUser
from bulwark.jobs import runs
from bulwark.jobs.runs import JobRun
from bulwark.web.access import permission, recent
from bulwark.web.errors import wants_json

RUN = "/jobs/<uuid:run_id>"
SHOWN = 2000  # characters of the arguments
CHANGED = "Someone else retried or discarded this job."


@blueprint.get("/jobs", endpoint="jobs")
@permission("failed_jobs:read")
def list_jobs() -> ResponseReturnValue:
    """List the newest failed runs, and count the others by state."""
    failed = select(JobRun).where(JobRun.state == runs.FAILED)
    newest = failed.order_by(JobRun.finished_at.desc(), JobRun.id).limit(PAGE)
    found = db.session.scalars(newest).all()
    query = select(JobRun.state, func.count()).group_by(JobRun.state)
    counts: dict[str, int] = dict(db.session.execute(query).all())
    if wants_json():
        return jsonify(jobs=[_to_dict(run) for run in found], counts=counts)
    return render_template("bulwark/admin/jobs.html", runs=found, counts=counts)


@blueprint.get(RUN, endpoint="job")
@permission("failed_jobs:read")
def show_job(run_id: UUID) -> ResponseReturnValue:
    """Show a failed run; its arguments only to those who may retry it."""
    run = _failed(run_id)
    arguments = None
    if current_user.has_permission("failed_jobs:write"):
        arguments = _arguments(run)
        events.record("sensitive_read", action="job")
        db.session.commit()
    if wants_json():
        return jsonify(_to_dict(run) | {"arguments": arguments})
    return render_template("bulwark/admin/job.html", run=run, arguments=arguments)


@blueprint.route(f"{RUN}/retry", methods=FORM)
@permission("failed_jobs:write")
@recent
def retry_job(run_id: UUID) -> ResponseReturnValue:
    """Queue a failed run again, with the same arguments."""
    run = _failed(run_id)
    name = run.name

    def retry(by: BaseUser, reason: str) -> None:
        if not runs.retry(run):
            raise RefusedError(CHANGED)
        events.record("sys_job_retried", actor=by, reason=reason, job=name)

    return act(
        _form("Retry the job"),
        retry,
        title=f"Retry {name}",
        text="It runs again with the same arguments, within a minute. If it had done"
        " a part of its work before it failed, it may do that part twice.",
        done=f"{name} runs again.",
        back=url_for(".jobs"),
    )


@blueprint.route(f"{RUN}/discard", methods=FORM)
@permission("failed_jobs:write")
@recent
def discard_job(run_id: UUID) -> ResponseReturnValue:
    """Delete a failed run."""
    run = _failed(run_id)
    name = run.name

    def discard(by: BaseUser, reason: str) -> None:
        if not runs.discard(run):
            raise RefusedError(CHANGED)
        events.record("sys_job_discarded", actor=by, reason=reason, job=name)

    return act(
        _form("Discard the job"),
        discard,
        title=f"Discard {name}",
        text="Its work is never done, and its arguments are deleted. This can't be"
        " undone.",
        done=f"{name} is discarded.",
        back=url_for(".jobs"),
    )


def _form(button: str) -> ReasonForm:
    form = ReasonForm()
    form.submit.label.text = button
    return form


def _failed(run_id: UUID) -> JobRun:
    run = db.session.get(JobRun, str(run_id))
    if run is None or not run.has_failed:
        abort(404)
    return run


def _arguments(run: JobRun) -> str:
    """Return the start of the arguments, as text."""
    try:
        packed = json.loads(run.arguments or "{}")["$message"]
    except (crypto.DecryptionError, ValueError, KeyError):
        db.session.rollback()
        return "They can't be read."
    shown = json.dumps(
        [*packed["args"]["$tuple"], packed["kwargs"]], ensure_ascii=False
    )
    return shown if len(shown) <= SHOWN else f"{shown[:SHOWN]}…"


def _to_dict(run: JobRun) -> dict[str, Any]:
    ended = run.finished_at
    return {
        "id": run.id,
        "name": run.name,
        "error": run.error,
        "tries": run.tries,
        "created_at": run.created_at.isoformat(),
        "failed_at": ended.isoformat() if ended else None,
    }
