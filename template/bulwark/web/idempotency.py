"""Idempotency keys: a client may repeat a request, and it is carried out once.

The header `Idempotency-Key` follows draft-ietf-httpapi-idempotency-key-header-07. The
key is stored in the transaction of the view, so it is there if and only if the view's
changes are. The response is stored after them, and repeated requests get it again.
"""

import hashlib
import hmac
import json
import re
from base64 import b64decode, b64encode
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import wraps
from typing import Any

from flask import Flask, Response, g, request
from huey import crontab
from sqlalchemy import LargeBinary, String, delete
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Mapped, mapped_column
from werkzeug.exceptions import BadRequest, Conflict, UnprocessableEntity

from bulwark import settings
from bulwark.database import Encrypted, Model, UTCDateTime, db, utcnow
from bulwark.jobs import queue

HEADER, REPLAYED = "Idempotency-Key", "Idempotent-Replayed"
METHODS = ("POST", "PATCH")  # the others are idempotent by definition (RFC 9110, 9.2.2)
KEPT = timedelta(days=1)
KEY_LENGTH = 255
VISIBLE = "[!-~]"
RESPONSE_LENGTH = 64 * 1024  # bytes; requests below an API's limit could fill the disk
SERVER_ERROR = 500
NOT_STORED = {"Set-Cookie", "Content-Length"}
INVALID = f"{HEADER} must contain 1 to {KEY_LENGTH} visible ASCII characters."
NOBODY = f"{HEADER} is only for requests with an access token or a session."
REUSED = f"This {HEADER} was sent with another request. Use a new key for each request."
LOST = (
    "The request with this key was carried out, but its response is not available."
    " Read what it changed."
)


def init_app(app: Flask) -> None:
    """Store responses before other functions add what each response has."""
    app.after_request(_store_response)


class IdempotentRequest(Model):
    """A request that is carried out, and its response."""

    __tablename__ = "idempotent_requests"

    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64))
    response: Mapped[bytes | None] = mapped_column(Encrypted(LargeBinary))
    expires_at: Mapped[datetime] = mapped_column(UTCDateTime, index=True)


def idempotent(
    view: Callable[..., Any], user: Callable[[], int | None]
) -> Callable[..., Any]:
    """Return a view that carries out each request with an idempotency key once.

    Args:
        view: the view.
        user: returns the id of the user who sent the request; None for visitors.

    Raises:
        BadRequest: the key is malformed, or the request is a visitor's.
        UnprocessableEntity: the key was sent with another request.
        Conflict: the response to the first request is not stored (yet).
    """

    @wraps(view)
    def wrapped(**values: Any) -> Any:
        if HEADER not in request.headers or request.method not in METHODS:
            return view(**values)
        key, fingerprint = _key(user()), _fingerprint()
        if not _begin(key, fingerprint):
            return _replay(key, fingerprint)
        g.idempotency_key = key
        return view(**values)

    return wrapped


@queue.periodic_task(crontab(minute="29"), name="forget_old_idempotency_keys")  # type: ignore[untyped-decorator]
def forget_old() -> None:
    """Delete the keys that have expired."""
    expired = IdempotentRequest.expires_at <= utcnow()
    db.session.execute(delete(IdempotentRequest).where(expired))
    db.session.commit()


def _store_response(response: Response) -> Response:
    """Store a response if its request has a key and the view committed its changes."""
    key = g.pop("idempotency_key", None)
    if key is None:
        return response
    db.session.rollback()  # what the view did not commit, with the key
    carried_out = db.session.get(IdempotentRequest, key)
    if carried_out and _may_be_stored(response):
        carried_out.response = _dump(response)
        db.session.commit()
    return response


def _key(user: int | None) -> str:
    """Return what is stored of the key: a keyed hash, different for each user."""
    sent = request.headers[HEADER].strip().removeprefix('"').removesuffix('"')
    if not re.fullmatch(f"{VISIBLE}{{1,{KEY_LENGTH}}}", sent):
        raise BadRequest(INVALID)
    if user is None:
        raise BadRequest(NOBODY)
    secret = settings.current().secret_key.encode()
    return hmac.digest(secret, f"idempotency:{user}:{sent}".encode(), "sha256").hex()


def _fingerprint() -> str:
    """Return a hash of what a repeated request has in common with the first one."""
    parts = (request.method, request.full_path, request.mimetype)
    content = hashlib.sha256(request.get_data())
    return hashlib.sha256(f"{parts} {content.hexdigest()}".encode()).hexdigest()


def _begin(key: str, fingerprint: str) -> bool:
    """Add the key to the transaction; return whether it is new.

    While another transaction has added the same key, this waits for its end.
    """
    db.session.add(
        IdempotentRequest(key=key, fingerprint=fingerprint, expires_at=utcnow() + KEPT)
    )
    try:
        db.session.flush()
    except IntegrityError:
        db.session.rollback()
        return False
    return True


def _replay(key: str, fingerprint: str) -> Response:
    """Return the response to the first request with this key."""
    first = db.session.get(IdempotentRequest, key)
    if first and first.fingerprint != fingerprint:
        raise UnprocessableEntity(REUSED)
    if first is None or first.response is None:
        raise Conflict(LOST)
    return _load(first.response)


def _may_be_stored(response: Response) -> bool:
    return (
        response.status_code < SERVER_ERROR
        and not response.is_streamed
        and len(response.get_data()) <= RESPONSE_LENGTH
    )


def _dump(response: Response) -> bytes:
    headers = [pair for pair in response.headers if pair[0] not in NOT_STORED]
    body = b64encode(response.get_data()).decode()
    return json.dumps([response.status_code, headers, body]).encode()


def _load(stored: bytes) -> Response:
    status, headers, body = json.loads(stored)
    response = Response(
        b64decode(body), status, [(name, text) for name, text in headers]
    )
    response.headers[REPLAYED] = "true"
    return response
