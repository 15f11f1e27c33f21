"""Outages: whether an error means that the database is down, full or locked."""

import sqlite3
from contextlib import suppress

import psycopg
from flask import g, has_app_context
from sqlalchemy import event, exc
from sqlalchemy.engine import Engine, ExceptionContext

from bulwark.database import db

# sqlite.org/rescode.html: the low byte. Other errors are faults of the statement.
SQLITE_PRIMARY_CODE = 0xFF
SQLITE_OUTAGES = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
}
# A standby rejects writes; psycopg does not treat that as an operational error.
READ_ONLY = "25006"


def is_outage(error: BaseException | None) -> bool:
    """Return whether an error means that the database is down, full or locked."""
    if isinstance(error, exc.TimeoutError):
        return True  # All connections of the pool are in use.
    if isinstance(error, exc.PendingRollbackError):
        # It does not name its cause: the error before it in this request does.
        return has_app_context() and bool(g.get("database_error_was_outage"))
    if isinstance(error, exc.DBAPIError) and error.connection_invalidated:
        return True
    raised = error.orig if isinstance(error, exc.DBAPIError) else error
    code = getattr(raised, "sqlite_errorcode", None)
    if code is not None:
        return code & SQLITE_PRIMARY_CODE in SQLITE_OUTAGES
    if isinstance(raised, psycopg.Error) and raised.sqlstate == READ_ONLY:
        return True
    operational = (exc.OperationalError, psycopg.OperationalError)
    return isinstance(error, (*operational, sqlite3.OperationalError))


def roll_back() -> None:
    """End the transaction, whatever state an error has left it in; never raise."""
    try:
        db.session.rollback()
    except Exception:  # noqa: BLE001  the connection is lost, or the session unusable
        with suppress(Exception):
            db.session().invalidate()
        db.session.registry.clear()


@event.listens_for(Engine, "handle_error")
def _remember(context: ExceptionContext) -> None:
    """Remember the error, for later ones that do not name their cause."""
    if has_app_context():
        raised = context.sqlalchemy_exception or context.original_exception
        g.database_error_was_outage = context.is_disconnect or is_outage(raised)
