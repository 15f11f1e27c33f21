"""Security events: what happened, to whom, by whom. Kept in a table and logged.

The names are those of the OWASP Logging Vocabulary; it has none for second factors and
resets, so those are declared here.
"""

import logging
import time
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from threading import Lock, Timer
from typing import TYPE_CHECKING, Any

from blinker import Signal
from flask import (
    Response,
    after_this_request,
    current_app,
    g,
    has_request_context,
    request,
)
from flask_login import current_user
from sqlalchemy import JSON, BigInteger, Index, Integer, String, event, inspect
from sqlalchemy.orm import Mapped, Session, mapped_column

from bulwark import lines, metrics, proxy
from bulwark.database import Model, UTCDateTime, db, utcnow
from bulwark.logging import log

if TYPE_CHECKING:
    from flask_security import UserMixin

USER_AGENT_LENGTH = 256
# Of one event, from one process. Who writes more is a flood, and the count says it all;
# the table keeps each.
LINES_A_MINUTE = 1000

# Sent by the app for each new event, with `event` and `user`, in its transaction.
recorded = Signal()


@dataclass(frozen=True)
class Kind:
    """What one kind of event means.

    Args:
        level: of the log line, as `logging` numbers it.
        told: what the person concerned reads in their own history; "" hides it there.
        meaning: what an operator should know.
    """

    level: int
    told: str
    meaning: str


INFO, WARNING, CRITICAL = logging.INFO, logging.WARNING, logging.CRITICAL

CATALOGUE: dict[str, Kind] = {
    "authn_login_success": Kind(INFO, "You signed in", "Somebody signed in"),
    "authn_login_successafterfail": Kind(
        INFO, "You signed in, after failed tries", "Somebody signed in after failures"
    ),
    "authn_login_fail": Kind(
        WARNING, "A wrong password was tried", "A sign-in failed at the first step"
    ),
    "authn_login_fail_max": Kind(
        WARNING,
        "Too many wrong tries: signing in was paused",
        "Tries for an account reached the limit",
    ),
    "authn_login_lock": Kind(
        WARNING, "Your account was locked", "An account is locked"
    ),
    "authn_login_unlock": Kind(
        INFO, "Your account was unlocked", "An account is unlocked"
    ),
    "authn_logout": Kind(INFO, "You signed out", "Somebody signed out"),
    "authn_password_change": Kind(
        INFO, "Your password was changed", "A password was changed, knowing the old one"
    ),
    "authn_password_change_fail": Kind(
        WARNING,
        "A password change failed: the current password was wrong",
        "Somebody signed in did not know the password",
    ),
    "authn_reset_requested": Kind(
        INFO, "A mail to set a new password was asked for", "A reset was asked for"
    ),
    "authn_reset_completed": Kind(
        INFO, "A new password was set by mail", "A password was set by a mailed link"
    ),
    "authn_reauth_fail": Kind(
        WARNING,
        "A wrong password was tried before a sensitive page",
        "Somebody signed in could not show that it is still them",
    ),
    "authn_mfa_enrolled": Kind(
        INFO, "A second factor was added", "A second factor was added"
    ),
    "authn_mfa_removed": Kind(
        WARNING, "A second factor was removed", "A second factor was removed"
    ),
    "authn_mfa_success": Kind(
        INFO, "Your second factor was accepted", "A second factor was accepted"
    ),
    "authn_mfa_fail": Kind(
        WARNING,
        "A wrong second factor was tried after your password",
        "The password was right and the second factor wrong",
    ),
    "authn_recovery_codes_made": Kind(
        INFO, "New recovery codes were made", "Recovery codes were made anew"
    ),
    "authn_recovery_code_used": Kind(
        WARNING, "A recovery code was used", "Somebody signed in with a recovery code"
    ),
    "authn_token_created": Kind(
        INFO, "An access token was made", "A personal access token was made"
    ),
    "authn_token_revoked": Kind(
        INFO, "An access token was revoked", "A personal access token was revoked"
    ),
    "authn_token_reuse": Kind(
        WARNING,
        "An expired or revoked access token was used",
        "An access token that is not valid any more was used",
    ),
    "authz_fail": Kind(WARNING, "", "Somebody asked for what they may not do"),
    "authz_change": Kind(
        INFO, "Your roles were changed", "A person's roles were changed"
    ),
    "authz_admin": Kind(
        WARNING, "An administrator acted on your account", "An administrator acted"
    ),
    "privilege_permissions_changed": Kind(
        WARNING, "", "The permissions of a role were changed"
    ),
    "sensitive_read": Kind(
        INFO, "", "An administrator read data of people, or took it away"
    ),
    "user_created": Kind(INFO, "Your account was made", "An account was made"),
    "user_email_changed": Kind(
        WARNING, "Your e-mail address was changed", "An account's address was changed"
    ),
    "session_expired": Kind(INFO, "", "A session reached its limit"),
    "session_revoked": Kind(
        INFO, "Sessions were signed out", "Sessions were ended from elsewhere"
    ),
    "excess_rate_limit_exceeded": Kind(WARNING, "", "A limit was reached"),
    "sys_audit_pruned": Kind(WARNING, "", "Old rows of the audit trail were deleted"),
    "sys_limiter_degraded": Kind(
        CRITICAL, "", "Redis is away: each process counts for itself"
    ),
}


# What `factor` says in the details of an event, and what people call it.
FACTORS = {
    "password": "password",
    "totp": "authenticator app",
    "passkey": "passkey",
    "email": "code by e-mail",
    "code": "code",
    "recovery_code": "recovery code",
    "all": "authenticator app, passkeys and recovery codes",
}


class SecurityEvent(Model):
    """One event. Rows are only ever added, and outlive the accounts they name."""

    __tablename__ = "security_events"
    __table_args__ = (Index("ix_security_events_user_id_at", "user_id", "at"),)

    id: Mapped[int] = mapped_column(
        BigInteger().with_variant(Integer, "sqlite"), primary_key=True
    )
    at: Mapped[datetime] = mapped_column(UTCDateTime, index=True)
    name: Mapped[str] = mapped_column(String(64))
    # Whom it concerns, and who did it; None is a visitor, or the operator's shell.
    user_id: Mapped[int | None]
    actor_id: Mapped[int | None]
    address: Mapped[str | None] = mapped_column(String(64))
    user_agent: Mapped[str | None] = mapped_column(String(USER_AGENT_LENGTH))
    session: Mapped[str | None] = mapped_column(String(16))
    request_id: Mapped[str | None] = mapped_column(String(64))
    method: Mapped[str | None] = mapped_column(String(16))
    route: Mapped[str | None] = mapped_column(String(256))
    reason: Mapped[str | None] = mapped_column(String(256))
    details: Mapped[dict[str, Any]] = mapped_column(JSON)

    @property
    def kind(self) -> Kind:
        """What this kind of event means."""
        return CATALOGUE[self.name]

    @property
    def factor(self) -> str:
        """The factor that it is about, in plain words, or ""."""
        return FACTORS.get(str(self.details.get("factor")), "")

    @property
    def by(self) -> str:
        """Who else did it; "" for the person concerned, or a stranger."""
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
        user: whose account it concerns.
        actor: who did it; by default whoever is signed in.
        reason: why, in words that hold no secret and no personal data.
        details: small facts, such as `factor="passkey"`. Never a password, code,
            token, link or address.

    Raises:
        KeyError: the catalogue does not know the name.
        TypeError: no line has such a detail.
    """
    CATALOGUE[name]
    if unknown := details.keys() - lines.FIELDS.keys():
        raise TypeError(f"lines.FIELDS does not declare {', '.join(sorted(unknown))}")
    here = _of_request() if has_request_context() else {}
    if actor is None and has_request_context() and current_user.is_authenticated:
        actor = current_user
    new = SecurityEvent(
        at=utcnow(),
        name=name,
        user_id=user.id if user else None,
        actor_id=actor.id if actor else None,
        reason=reason[:256] or None,
        details=details,
        **here,
    )
    recorded.send(current_app._get_current_object(), event=new, user=user)  # type: ignore[attr-defined]
    db.session.add(new)
    if has_request_context():
        after_this_request(_commit)
    return new


def _of_request() -> dict[str, Any]:
    return {
        "address": request.remote_addr,
        "user_agent": request.user_agent.string[:USER_AGENT_LENGTH] or None,
        "session": g.get("session_mark"),
        "request_id": g.get("request_id"),
        "method": request.method,
        "route": request.url_rule.rule if request.url_rule else None,
    }


def _commit(response: Response) -> Response:
    if response.status_code < 500:  # noqa: PLR2004
        db.session.commit()
    return response


@event.listens_for(db.session, "after_flush")
def _remember(session: Session, _: object) -> None:
    waiting = session.info.setdefault("events", [])
    waiting += [
        (new, _line(new)) for new in session.new if isinstance(new, SecurityEvent)
    ]


@event.listens_for(db.session, "after_commit")
def _log(session: Session) -> None:
    """Log what is kept for good: not at a savepoint, nor what was rolled back."""
    if session.in_nested_transaction():
        return
    links = session.info.pop("links", {})
    for new, (level, name, fields) in session.info.pop("events", []):
        if inspect(new).persistent:
            metrics.current().events.labels(name).inc()
            if _flood.lets_through(name):
                log.log(level, name, **fields, audit=str(links[new.id]))


class _Flood:
    """Bounds how many lines of one event are written, and keeps their count true."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._lines: Counter[str] = Counter()
        self._left_out: Counter[str] = Counter()
        self._ends = 0.0

    def lets_through(self, name: str) -> bool:
        """Count a line, and tell whether it is to be written."""
        with self._lock:
            if time.monotonic() >= self._ends:
                self._lines.clear()
                self._ends = time.monotonic() + 60
            self._lines[name] += 1
            if self._lines[name] <= LINES_A_MINUTE:
                return True
            metrics.current().lines_left_out.labels(name).inc()
            if not self._left_out:
                later = Timer(max(0.1, self._ends - time.monotonic()), self._tell)
                later.daemon = True
                later.start()
            self._left_out[name] += 1
            return False

    def _tell(self) -> None:
        with self._lock:
            left_out, self._left_out = self._left_out, Counter()
        for name, times in left_out.items():
            log.warning("events_left_out", of=name, count=times)


_flood = _Flood()


def _line(new: SecurityEvent) -> tuple[int, str, dict[str, Any]]:
    """Return the log line of an event: its level, its name and its fields."""
    fields = {
        "description": new.kind.meaning,
        "user_id": new.user_id,
        "actor_id": new.actor_id,
        "address": new.address,
        "network": proxy.network_of(new.address) if new.address else None,
        "user_agent": new.user_agent,
        "session": new.session,
        "method": new.method,
        "route": new.route,
        "reason": new.reason,
        **new.details,
    }
    return new.kind.level, new.name, {k: v for k, v in fields.items() if v is not None}
