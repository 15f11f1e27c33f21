"""The security history of all accounts, by event, user, address and date."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from flask import (
    Response,
    abort,
    jsonify,
    render_template,
    request,
    stream_with_context,
)
from flask.typing import ResponseReturnValue
from sqlalchemy import Select, or_, select

from bulwark.admin.confirmation import (
    PAGE,
    argument,
    before,
    blueprint,
    search,
)
from bulwark.audit import events
from bulwark.audit.catalogue import CATALOGUE
from bulwark.audit.events import SecurityEvent
from bulwark.audit.export import json_rows
from bulwark.audit.trail import AuditLink
from bulwark.database import db, utcnow
from bulwark.identity import devices, users
from bulwark.web.access import permission, recent
from bulwark.web.errors import wants_json

FILTERS = ("name", "person", "address", "to")
USUAL_SPAN = timedelta(days=30)
# The maximum of each column type: the database rejects larger numbers.
INTEGER, BIG_INTEGER = 2**31 - 1, 2**63 - 1


@blueprint.get("/history", endpoint="history")
@permission("users:read")
def list_events() -> ResponseReturnValue:
    """List events, newest first: those of the last 30 days by default."""
    query = _from_cursor(_events())
    query = query.order_by(SecurityEvent.at.desc(), SecurityEvent.id.desc())
    found = db.session.scalars(query.limit(PAGE + 1)).all()
    page = to_dicts(found[:PAGE])
    older = page[-1]["id"] if len(found) > PAGE else None
    if wants_json():
        return jsonify(events=to_json(page), before=older)
    return render_template(
        "bulwark/admin/history.html",
        events=page,
        older=older,
        search=search(*FILTERS) | {"from": _first()},
        kinds=CATALOGUE,
    )


@blueprint.get("/history/export")
@permission("users:read")
@recent
def export() -> ResponseReturnValue:
    """Record the export, then stream the rows of all matching events."""
    query = _events()
    events.record("sensitive_read", action="export")
    db.session.commit()
    rows = stream_with_context(row + "\n" for row in json_rows(query))
    response = Response(rows, mimetype="application/x-ndjson")
    response.headers.set(
        "Content-Disposition",
        "attachment",
        filename=f"audit-{utcnow():%Y-%m-%d}.jsonl",
    )
    response.cache_control.no_store = True
    return response


def _first() -> str:
    """Return the first day of the search; "" means no limit."""
    return request.args.get("from", (utcnow() - USUAL_SPAN).date().isoformat())


def _events() -> Select[SecurityEvent]:
    """Return a query of the events that match the search."""
    query = select(SecurityEvent)
    if first := _first():
        start = datetime.combine(_day(first), time.min, UTC)
        query = query.where(SecurityEvent.at >= start)
    if last := argument("to"):
        end = datetime.combine(_day(last), time.max, UTC)
        query = query.where(SecurityEvent.at <= end)
    if name := argument("name"):
        query = query.where(SecurityEvent.name == name)
    if address := argument("address"):
        query = query.where(SecurityEvent.address == address)
    if user := argument("person"):
        query = query.where(SecurityEvent.user_id == _id_of(user))
    return query


def _from_cursor(query: Select[SecurityEvent]) -> Select[SecurityEvent]:
    """Start where the previous page ended."""
    cursor = db.session.get(SecurityEvent, before(BIG_INTEGER))
    if cursor:
        query = query.where(
            SecurityEvent.at <= cursor.at,
            or_(SecurityEvent.at < cursor.at, SecurityEvent.id < cursor.id),
        )
    return query


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        abort(400, "Enter a date such as 2026-11-21.")


def _id_of(user: str) -> int:
    """Return a user id, given as a number or as an email address.

    The id may be that of a deleted user.
    """
    if user.isdecimal():
        return min(int(user[:19]), INTEGER)
    found = users.find(user)
    return found.id if found else 0


def to_dicts(found: Sequence[SecurityEvent]) -> list[dict[str, Any]]:
    """Return events as administrators see them, with email addresses of users."""
    ids = {event.user_id for event in found} | {event.actor_id for event in found}
    model = users.model()
    query = select(model.id, model.email).where(model.id.in_(ids - {None}))
    names: dict[int | None, str] = dict(db.session.execute(query).all())
    linked = select(AuditLink.event_id, AuditLink.position).where(
        AuditLink.event_id.in_([event.id for event in found])
    )
    rows: dict[int, int] = dict(db.session.execute(linked).all())
    return [
        {
            "id": event.id,
            "row": rows.get(event.id),
            "at": event.at,
            "name": event.name,
            "meaning": event.kind.meaning,
            "user_id": event.user_id,
            "user": names.get(event.user_id),
            "actor_id": event.actor_id,
            "actor": names.get(event.actor_id),
            "reason": event.reason,
            "address": event.address,
            "device": devices.name_of(event.user_agent) if event.user_agent else None,
            "details": event.details,
        }
        for event in found
    ]


def to_json(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return events with their times as JSON strings."""
    return [event | {"at": event["at"].isoformat()} for event in events]
