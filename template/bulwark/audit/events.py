"""Security events: what happened, to whom, by whom. Stored in a table and logged."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click
from blinker import Signal
from flask import current_app, g, has_request_context, request
from flask_login import current_user
from sqlalchemy import JSON, BigInteger, Index, Integer, String, inspect
from sqlalchemy.orm import Mapped, mapped_column

from bulwark.audit.catalogue import CATALOGUE, FACTORS, Kind
from bulwark.database import PERSONAL, Model, UTCDateTime, db, utcnow
from bulwark.database.transactions import commit_after_request
from bulwark.network import network_of
from bulwark.observability import log_schema, metrics, request_log
from bulwark.observability.line_limit import line_limiter
from bulwark.observability.logging import LONG_RUNNING, log

if TYPE_CHECKING:
    from flask_security import UserMixin

USER_AGENT_LENGTH = 256
REASON_LENGTH = 256
# Sent by the app for each new event, with `event` and `user`, in its transaction.
recorded = Signal()


class SecurityEvent(Model):
    """One event. The table is append-only; rows outlive the accounts they name."""

    __tablename__ = "security_events"
    __table_args__ = (Index("ix_security_events_user_id_at", "user_id", "at"),)

    id: Mapped[int] = mapped_column(
        BigInteger().with_variant(Integer, "sqlite"), primary_key=True
    )
    at: Mapped[datetime] = mapped_column(UTCDateTime, index=True)
    name: Mapped[str] = mapped_column(String(64))
    # The user concerned, and who did it; None is a visitor, or the operator's shell.
    user_id: Mapped[int | None]
    actor_id: Mapped[int | None]
    address: Mapped[str | None] = mapped_column(String(64), info=PERSONAL)
    user_agent: Mapped[str | None] = mapped_column(
        String(USER_AGENT_LENGTH), info=PERSONAL
    )
    session: Mapped[str | None] = mapped_column(String(16))
    request_id: Mapped[str | None] = mapped_column(String(64))
    method: Mapped[str | None] = mapped_column(String(16))
    route: Mapped[str | None] = mapped_column(String(256))
    reason: Mapped[str | None] = mapped_column(String(REASON_LENGTH))
    details: Mapped[dict[str, Any]] = mapped_column(JSON)

    @property
    def kind(self) -> Kind:
        """The meaning of this kind of event."""
        return CATALOGUE[self.name]

    @property
    def factor(self) -> str:
        """The name of the factor concerned, or ""."""
        return FACTORS.get(str(self.details.get("factor")), "")

    @property
    def by(self) -> str:
        """Who did it; "" for the user concerned, or a visitor."""
        if self.actor_id not in (None, self.user_id):
            return "an administrator"
        return "the operator of this service" if self.method is None else ""


def record(
    name: str,
    user: "UserMixin | None" = None,
    *,
    actor: "UserMixin | None" = None,
    reason: str = "",
    **details: Any,
) -> SecurityEvent:
    """Add an event to the current transaction; a request commits it at its end.

    Args:
        name: one of `CATALOGUE`.
        user: the user whose account it concerns.
        actor: the user who did it; by default the one who is signed in.
        reason: why, without secrets or personal data.
        details: small facts, such as `factor="passkey"`. Never a password, code,
            token, link or address.

    Raises:
        KeyError: the name is not in the catalogue.
        TypeError: a detail is not declared, or `emit` is for such events.
    """
    _refuse_undeclared(name, details, audited=True)
    new = _new_event(name, user, actor)
    new.reason, new.details = reason[:REASON_LENGTH] or None, details
    recorded.send(current_app._get_current_object(), event=new, user=user)  # type: ignore[attr-defined]
    db.session.add(new)
    commit_after_request()
    return new


def emit(name: str, *, reason: str = "", **details: Any) -> None:
    """Log and count an event that is not in the audit trail, without the database.

    Args:
        name: one of `CATALOGUE`.
        reason: why, without secrets or personal data.
        details: as for `record`; `exc_info=True` adds the exception.

    Raises:
        KeyError: the name is not in the catalogue.
        TypeError: a detail is not declared, or `record` is for such events.
    """
    _refuse_undeclared(name, details.keys() - {"exc_info"}, audited=False)
    fields = {"description": CATALOGUE[name].meaning, "reason": reason or None}
    if has_request_context():
        fields |= _request_fields() | {
            "network": network_of(request.remote_addr or ""),
            "actor_id": _loaded_visitor_id(),
        }
    log_event(name, fields | details)


@contextmanager
def log_lifecycle(part: str) -> Iterator[None]:
    """Log the start and the end of a part of the service that a command runs."""
    click.get_current_context().meta[LONG_RUNNING] = True
    emit("sys_startup", part=part)
    try:
        yield
    finally:
        emit("sys_shutdown", part=part)


def _refuse_undeclared(name: str, details: Iterable[str], *, audited: bool) -> None:
    if CATALOGUE[name].audited != audited:
        raise TypeError(f"{name} is for {'emit' if audited else 'record'}()")
    if unknown := set(details) - log_schema.FIELDS.keys():
        raise TypeError(
            f"log_schema.FIELDS does not declare {', '.join(sorted(unknown))}"
        )


def _new_event(
    name: str, user: "UserMixin | None", actor: "UserMixin | None"
) -> SecurityEvent:
    """Return an event of now, with what the request shows of its client."""
    fields = _request_fields() if has_request_context() else {}
    if actor is None and has_request_context() and current_user.is_authenticated:
        actor = current_user
    return SecurityEvent(
        at=utcnow(),
        name=name,
        user_id=user.id if user else None,
        actor_id=actor.id if actor else None,
        **fields,
    )


def _loaded_visitor_id() -> int | None:
    """Return the signed-in user's id without a query: the database may be down.

    After a rollback, reading `user.id` would query the database.
    """
    state = inspect(g.get("_login_user"), raiseerr=False)
    return state.identity[0] if state and state.identity else None


def _request_fields() -> dict[str, Any]:
    return {
        "address": request.remote_addr,
        "user_agent": request.user_agent.string[:USER_AGENT_LENGTH] or None,
        "session": g.get("session_mark"),
        "request_id": request_log.current_id() or None,
        "method": request.method,
        "route": request.url_rule.rule if request.url_rule else None,
    }


def log_fields(event: SecurityEvent) -> dict[str, Any]:
    """Return the fields of an event's log line."""
    return {
        "description": event.kind.meaning,
        "user_id": event.user_id,
        "actor_id": event.actor_id,
        "address": event.address,
        "network": network_of(event.address) if event.address else None,
        "user_agent": event.user_agent,
        "session": event.session,
        "method": event.method,
        "route": event.route,
        "reason": event.reason,
        **event.details,
    }


def log_event(name: str, fields: dict[str, Any]) -> None:
    """Count an event, and log it unless there are too many of its kind."""
    metrics.current().events.labels(name).inc()
    if line_limiter.allow(name):
        shown = {key: value for key, value in fields.items() if value is not None}
        log.log(CATALOGUE[name].level, name, **shown)
