"""The security history of all accounts, by event, person, address and date."""

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
    person_model,
    search,
)
from bulwark.audit import events
from bulwark.audit.catalogue import CATALOGUE
from bulwark.audit.events import SecurityEvent
from bulwark.audit.export import json_rows
from bulwark.audit.trail import AuditLink
from bulwark.database import db, utcnow
from bulwark.identity import accounts, devices
from bulwark.web.access import permission, recent
from bulwark.web.errors import wants_json

FILTERS = ("name", "person", "address", "to")
USUAL_SPAN = timedelta(days=30)
# The maximum of each column type: the database rejects larger numbers.
INTEGER, BIG_INTEGER = 2**31 - 1, 2**63 - 1


@blueprint.get("/history")
@permission("users:read")
def history() -> ResponseReturnValue:
    """List events, newest first: those of the last 30 days by default."""
    query = _from_cursor(_events())
    query = query.order_by(SecurityEvent.at.desc(), SecurityEvent.id.desc())
    found = db.session.scalars(query.limit(PAGE + 1)).all()
    page = facts_of_events(found[:PAGE])
    older = page[-1]["id"] if len(found) > PAGE else None
    if wants_json():
        return jsonify(events=plain(page), before=older)
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
    answer = Response(rows, mimetype="application/x-ndjson")
    answer.headers.set(
        "Content-Disposition",
        "attachment",
        filename=f"audit-{utcnow():%Y-%m-%d}.jsonl",
    )
    answer.cache_control.no_store = True
    return answer


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
    if who := argument("person"):
        query = query.where(SecurityEvent.user_id == _id_of(who))
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


def _id_of(who: str) -> int:
    """Return a user id, given as a number or as an email address.

    The id may be that of a deleted user.
    """
    if who.isdecimal():
        return min(int(who[:19]), INTEGER)
    found = accounts.find(who)
    return found.id if found else 0


def facts_of_events(found: Sequence[SecurityEvent]) -> list[dict[str, Any]]:
    """Return events as administrators see them, with email addresses of users."""
    ids = {event.user_id for event in found} | {event.actor_id for event in found}
    person = person_model()
    query = select(person.id, person.email).where(person.id.in_(ids - {None}))
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


def plain(facts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return events with their times as JSON strings."""
    return [fact | {"at": fact["at"].isoformat()} for fact in facts]
