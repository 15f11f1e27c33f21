"""The overview: the events of the last 24 hours, and the system status.

It serves installations without other monitoring. All data comes from the database and
from what the worker stored, so the page never waits for another system. Data that can't
be read is shown as unknown.
"""

import logging
from collections.abc import Sequence
from datetime import datetime

from flask import jsonify, render_template
from flask.typing import ResponseReturnValue
from sqlalchemy import Select, select

from bulwark.admin import event_counts, history, system_status
from bulwark.admin.confirmation import blueprint
from bulwark.admin.event_counts import COUNTED, Series
from bulwark.audit import promises
from bulwark.audit.catalogue import CATALOGUE
from bulwark.audit.events import SecurityEvent
from bulwark.database import db
from bulwark.ops import status
from bulwark.ops.status import HOUR, HOURS
from bulwark.web.access import permission
from bulwark.web.errors import wants_json

LATEST = 8


@blueprint.get("")
@permission("users:read")
def overview() -> ResponseReturnValue:
    """Show the last 24 hours, and the system status."""
    first = status.first_hour()
    hours = [first + number * HOUR for number in range(HOURS)]
    series = [
        *event_counts.count_by_hour(first),
        Series("server_errors", _server_errors(hours)),
    ]
    current = system_status.read()
    latest = history.to_dicts(db.session.scalars(_noteworthy(first)).all())
    if wants_json():
        return jsonify(
            hours=[hour.isoformat() for hour in hours],
            counts={one.key: one.by_hour for one in series},
            **current.to_json(),
            promises_given_up=promises.given_up(),
            events=history.to_json(latest),
        )
    return render_template(
        "bulwark/admin/overview.html",
        hours=hours,
        series=series,
        status=current,
        concerns=current.concerns,
        promises=promises.PROMISES,
        given_up=promises.given_up(),
        events=latest,
        hour_long=HOUR,
        most_counted=event_counts.MOST_COUNTED,
    )


def _server_errors(hours: Sequence[datetime]) -> list[int | None]:
    counts = system_status.or_unknown(status.errors_by_hour) or {}
    return [counts.get(hour) for hour in hours]


def _noteworthy(first: datetime) -> Select[SecurityEvent]:
    """Return a query of the newest warnings that no series counts."""
    in_series = {name for names in COUNTED.values() for name in names}
    names = [
        name
        for name, kind in CATALOGUE.items()
        if kind.level >= logging.WARNING and name not in in_series
    ]
    return (
        select(SecurityEvent)
        .where(SecurityEvent.at >= first, SecurityEvent.name.in_(names))
        .order_by(SecurityEvent.at.desc(), SecurityEvent.id.desc())
        .limit(LATEST)
    )
