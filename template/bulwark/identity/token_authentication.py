"""Authenticates requests by the access token in their `Authorization` header.

A token is only valid on routes that require a permission. The token must include the
permission, and its owner must have it at the time of the request.
"""

from datetime import timedelta

from flask import Flask, Request, current_app, g, request
from flask.typing import ResponseReturnValue
from flask_login import AnonymousUserMixin
from sqlalchemy.exc import SQLAlchemyError

from bulwark.audit import events
from bulwark.database import db, utcnow
from bulwark.identity import hashed_tokens
from bulwark.identity.models import BaseUser
from bulwark.identity.session_store import ignore_outage
from bulwark.identity.tokens import TOKEN, AccessToken
from bulwark.web import access, attempts
from bulwark.web.errors import refusal

# The precision of the last use: at most one write a minute for each token.
TOUCH_AFTER = timedelta(minutes=1)


def init_app(app: Flask) -> None:
    """Authenticate requests by token."""
    app.login_manager.request_loader(_load_owner)  # type: ignore[attr-defined]


def _load_owner(request: Request) -> BaseUser | None:
    """Return the owner of the request's token with their roles, in one query."""
    if not has_bearer_token():
        return None
    text = request.authorization and request.authorization.token
    if not text or not TOKEN.fullmatch(text):
        return None
    try:
        found = hashed_tokens.find(AccessToken, text)
    except SQLAlchemyError:
        g._login_user = AnonymousUserMixin()  # so that the user is not loaded again
        raise
    if found is None:
        return None
    token, owner = found
    reason = token.ended or ("" if owner.active else "its owner is locked")
    if reason:
        g.ended_token = owner, token.id, reason
        return None
    g.session_mark = f"token {token.id}"
    owner.token_permissions = frozenset(token.permissions)
    _touch(token)
    return owner


def challenge() -> ResponseReturnValue:
    """Respond with 401 (RFC 6750, 3), and record the use of an ended token."""
    ended = g.pop("ended_token", None)
    if ended:
        owner, token_id, reason = ended
        # Once an hour: a forgotten script would fill the table.
        if attempts.count("token reuse", str(token_id), timedelta(hours=1)).count == 1:
            events.record("authn_token_reuse", owner, reason=reason, token_id=token_id)
    if has_bearer_token():
        error, hint = "This access token is not valid", 'Bearer error="invalid_token"'
    else:
        error, hint = "Please sign in", "Bearer"
    return refusal(401, error, {"WWW-Authenticate": hint})


def has_bearer_token() -> bool:
    """Return whether the request has a bearer token on a route that accepts one."""
    sent = request.authorization
    if sent is None or sent.type != "bearer" or request.endpoint is None:
        return False
    return access.declared_for(current_app, request.endpoint) != access.PUBLIC


def _touch(token: AccessToken) -> None:
    now = utcnow()
    if token.last_used_at and now - token.last_used_at <= TOUCH_AFTER:
        return
    db.session.merge(token, load=False).last_used_at = now
    with ignore_outage():
        db.session.commit()
