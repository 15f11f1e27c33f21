"""Export of the audit trail as JSON."""

import json
from collections.abc import Iterator

from sqlalchemy import Select

from bulwark.audit.events import SecurityEvent
from bulwark.audit.trail import COVERED, AuditLink
from bulwark.database import db

ROWS_AT_ONCE = 1000


def json_rows(query: Select[SecurityEvent]) -> Iterator[str]:
    """Yield the selected events with their links as JSON, oldest first.

    Only a few are in memory at a time. A row contains all that its link covers.
    """
    linked = AuditLink.event_id == SecurityEvent.id
    rows = query.join(AuditLink, linked).add_columns(AuditLink)
    rows = rows.order_by(None).order_by(AuditLink.position)
    result = db.session.execute(rows.execution_options(yield_per=ROWS_AT_ONCE))
    for event, link in result:
        row = {name: getattr(event, name) for name in COVERED}
        row["at"] = event.at.isoformat(timespec="microseconds")
        yield json.dumps({"row": link.position, **row, "mac": link.mac.hex()})
