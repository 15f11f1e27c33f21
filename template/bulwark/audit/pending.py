"""Events that wait for their commit: they are linked before it, and logged after it.

A transaction whose events can't be linked fails. One that is rolled back logs nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sqlalchemy import event, inspect
from sqlalchemy.orm import Session

from bulwark.audit import events, trail
from bulwark.audit.events import SecurityEvent
from bulwark.audit.trail import Head
from bulwark.database import db


class FlushedEvent(NamedTuple):
    """An event with what its log line needs: a commit expires the event itself."""

    event: SecurityEvent
    name: str
    fields: dict[str, Any]

    @property
    def survived(self) -> bool:
        """Whether it was not rolled back, with a savepoint for example."""
        return inspect(self.event).persistent


@dataclass
class PendingEvents:
    """The events of one session that wait for its commit."""

    flushed: list[FlushedEvent] = field(default_factory=list)
    links: dict[int, Head] = field(default_factory=dict)  # by the event's id

    def add(self, new: SecurityEvent) -> None:
        """Add an event that was flushed."""
        self.flushed.append(FlushedEvent(new, new.name, events.log_fields(new)))

    def link(self, session: Session) -> None:
        """Add a link for each event to the audit trail."""
        if new := [waiting.event for waiting in self.flushed if waiting.survived]:
            self.links = trail.add_links(session, new)

    def log(self) -> None:
        """Log the events with their links."""
        for waiting in self.flushed:
            if waiting.survived:
                link = {"audit": str(self.links[waiting.event.id])}
                events.log_event(waiting.name, waiting.fields | link)


def pending_events(session: Session) -> PendingEvents:
    """Return the events that wait for the commit of a session."""
    pending: PendingEvents = session.info.setdefault(PendingEvents, PendingEvents())
    return pending


def register() -> None:
    """Link and log the events of each commit. Repeated calls have no effect."""
    for name, listener in LISTENERS.items():
        if not event.contains(db.session, name, listener):
            event.listen(db.session, name, listener)


def _collect(session: Session, _: object) -> None:
    for new in session.new:
        if isinstance(new, SecurityEvent):
            pending_events(session).add(new)


def _link(session: Session) -> None:
    if session.in_nested_transaction():
        return
    session.flush()
    pending_events(session).link(session)


def _log(session: Session) -> None:
    if session.in_nested_transaction():
        return
    session.info.pop(PendingEvents, PendingEvents()).log()


LISTENERS: dict[str, Callable[..., None]] = {
    "after_flush": _collect,
    "before_commit": _link,
    "after_commit": _log,
}
