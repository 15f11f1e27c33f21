"""The activity of the account: the events that concern its user."""

from typing import Any

from flask import jsonify, render_template, request
from flask.typing import ResponseReturnValue
from flask_login import current_user
from sqlalchemy import Select, select

from bulwark.account.blueprint import blueprint, to_json
from bulwark.audit.catalogue import CATALOGUE
from bulwark.audit.events import SecurityEvent
from bulwark.database import db
from bulwark.identity import devices
from bulwark.web.access import signed_in
from bulwark.web.errors import wants_json

PAGE = 25
NEWEST = 2**63 - 1  # The maximum id in a database.
SHOWN = [name for name, kind in CATALOGUE.items() if kind.user_text]


@blueprint.get("/account/activity")
@signed_in
def activity() -> ResponseReturnValue:
    """List the activity of the account, newest first, a page at a time."""
    before = max(0, min(request.args.get("before", NEWEST, type=int), NEWEST))
    found = db.session.scalars(
        history().where(SecurityEvent.id < before).limit(PAGE + 1)
    ).all()
    page = [to_dict(event) for event in found[:PAGE]]
    older = page[-1]["id"] if len(found) > PAGE else None
    if wants_json():
        return jsonify(activity=to_json(page), older_than=older)
    return render_template("bulwark/activity.html", activity=page, older=older)


def history() -> Select[SecurityEvent]:
    """Return a query of the user's events, newest first."""
    return (
        select(SecurityEvent)
        .where(SecurityEvent.user_id == current_user.id, SecurityEvent.name.in_(SHOWN))
        .order_by(SecurityEvent.at.desc(), SecurityEvent.id.desc())
    )


def to_dict(event: SecurityEvent) -> dict[str, Any]:
    """Return an event for its user, without the location of administrators."""
    return {
        "id": event.id,
        "at": event.at,
        "name": event.name,
        "text": event.kind.user_text,
        "factor": event.factor or None,
        "by": event.by or None,
        "device": None if event.by else devices.name_of(event.user_agent),
        "address": None if event.by else event.address,
    }
