"""Browsers that a user has signed in with, and their names."""

import hashlib
import re
import secrets
from datetime import datetime, timedelta

from flask import Response, after_this_request, request
from huey import crontab
from sqlalchemy import ForeignKey, String, delete, select
from sqlalchemy.orm import Mapped, mapped_column

from bulwark import settings
from bulwark.audit import events
from bulwark.database import SECRET, Model, UTCDateTime, db, utcnow
from bulwark.database.upserts import upsert
from bulwark.identity.models import BaseUser
from bulwark.jobs import queue

COOKIE = "device"
LIFETIME = timedelta(days=400)  # the maximum lifetime of cookies (RFC 6265bis, 5.5)
TOKEN_BYTES = 32
NOBODY = 0  # not the id of any user
TOKEN = re.compile(r"[\w-]{43}", re.ASCII)

# Parts of a User-Agent, with the names to display. The first match counts, as most
# browsers also include the names of older ones.
BROWSERS = {
    "Edg/": "Edge",
    "EdgA/": "Edge",
    "EdgiOS/": "Edge",
    "OPR/": "Opera",
    "SamsungBrowser/": "Samsung Internet",
    "Vivaldi/": "Vivaldi",
    "Firefox/": "Firefox",
    "FxiOS/": "Firefox",
    "CriOS/": "Chrome",
    "HeadlessChrome/": "Headless Chrome",
    "Chrome/": "Chrome",
    "Version/": "Safari",
    "curl/": "curl",
    "Wget/": "Wget",
    "python-requests/": "a Python script",
    "python-httpx/": "a Python script",
    "Python-urllib/": "a Python script",
    "Go-http-client/": "a Go program",
    "okhttp/": "an app",
    "PostmanRuntime/": "Postman",
}
SYSTEMS = {
    "iPhone": "iPhone",
    "iPad": "iPad",
    "Android": "Android",
    "CrOS": "ChromeOS",
    "Windows": "Windows",
    "Macintosh": "Mac",
    "Linux": "Linux",
}


class KnownDevice(Model):
    """A browser that a user has signed in with, identified by a hash of its cookie."""

    __tablename__ = "known_devices"

    user_id: Mapped[int] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), primary_key=True
    )
    token_hash: Mapped[str] = mapped_column(String(64), primary_key=True, info=SECRET)
    created_at: Mapped[datetime] = mapped_column(UTCDateTime)
    last_seen_at: Mapped[datetime] = mapped_column(UTCDateTime, index=True)


def name_of(user_agent: str | None) -> str:
    """Return the name of a browser, such as `Firefox on Linux`.

    It only uses names from the two tables, nothing from the header itself.
    """
    text = (user_agent or "")[: events.USER_AGENT_LENGTH]
    browser = _first(BROWSERS, text) or "Unknown browser"
    system = _first(SYSTEMS, text)
    return f"{browser} on {system}" if system else browser


def known_to(user: BaseUser | None) -> str:
    """Return a stable id of this browser if the user signed in with it, else "".

    It takes the same time whether there is a user or not.
    """
    token = _token()
    if not token:
        return ""
    user_id = user.id if user else NOBODY
    found = db.session.scalar(
        select(KnownDevice.token_hash).where(
            KnownDevice.user_id == user_id,
            KnownDevice.token_hash == _hash(user_id, token),
            KnownDevice.last_seen_at > utcnow() - LIFETIME,
        )
    )
    return found or ""


def remember(user: BaseUser) -> None:
    """Store this browser, in the current transaction, after the user has signed in."""
    token, now = _token() or secrets.token_urlsafe(TOKEN_BYTES), utcnow()
    statement = upsert(
        KnownDevice,
        {
            "user_id": user.id,
            "token_hash": _hash(user.id, token),
            "created_at": now,
            "last_seen_at": now,
        },
        key=[KnownDevice.user_id, KnownDevice.token_hash],
        changes={"last_seen_at": now},
    )
    db.session.execute(statement)

    @after_this_request
    def _set_cookie(response: Response) -> Response:
        response.set_cookie(
            settings.current().cookie(COOKIE),
            token,
            max_age=LIFETIME,
            path="/",
            secure=True,
            httponly=True,
            samesite="Lax",
        )
        return response


def forget_others(user: BaseUser) -> None:
    """Delete all browsers of the user except this one."""
    db.session.execute(
        delete(KnownDevice).where(
            KnownDevice.user_id == user.id, KnownDevice.token_hash != known_to(user)
        )
    )


@queue.periodic_task(crontab(hour="3", minute="41"), name="forget_old_devices")  # type: ignore[untyped-decorator]
def forget_old() -> None:
    """Delete browsers whose cookie has expired."""
    db.session.execute(
        delete(KnownDevice).where(KnownDevice.last_seen_at <= utcnow() - LIFETIME)
    )
    db.session.commit()


def _first(names: dict[str, str], text: str) -> str:
    return next((name for part, name in names.items() if part in text), "")


def _token() -> str:
    token = request.cookies.get(settings.current().cookie(COOKIE), "")
    return token if TOKEN.fullmatch(token) else ""


def _hash(user_id: int, token: str) -> str:
    # Includes the user, so that the table does not reveal who shares a browser.
    return hashlib.sha256(f"{user_id}:{token}".encode()).hexdigest()
