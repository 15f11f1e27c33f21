"""Addresses that unsubscribed from a list of emails, and the links to do so.

A link shows no address: it has a hash of the address and the list, signed with the
service's key. It needs no sign-in, and works as long as the key is in use.
"""

import hashlib
import re
from datetime import datetime

from itsdangerous import BadData, Signer
from sqlalchemy import String, delete, select
from sqlalchemy.orm import Mapped, mapped_column

from bulwark import settings
from bulwark.database import Model, UTCDateTime, db, utcnow
from bulwark.database.upserts import upsert

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,49}")


class MailOptOut(Model):
    """An address that gets no emails of one list."""

    __tablename__ = "mail_opt_outs"

    # SHA-256 of the list and the address. It hides no address from an attacker: those
    # of users are in their table.
    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    at: Mapped[datetime] = mapped_column(UTCDateTime)


def key_of(name: str, address: str) -> str:
    """Return what identifies an address in a list.

    Raises:
        ValueError: it is not the name of a list.
    """
    if not NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} is not the name of a list: use lowercase letters, digits and -"
        )
    return hashlib.sha256(f"{name}\0{address.strip().lower()}".encode()).hexdigest()


def is_out(key: str) -> bool:
    """Return whether an address unsubscribed."""
    query = select(MailOptOut.key).where(MailOptOut.key == key)
    return db.session.scalar(query) is not None


def add(key: str) -> None:
    """Unsubscribe an address; it may be so already."""
    now = {"at": utcnow()}
    statement = upsert(
        MailOptOut, {"key": key, **now}, key=[MailOptOut.key], changes=now
    )
    db.session.execute(statement)


def remove(key: str) -> None:
    """Subscribe an address again."""
    db.session.execute(delete(MailOptOut).where(MailOptOut.key == key))


def token_of(name: str, address: str) -> str:
    """Return what a link contains. No proxy takes it for a hidden file."""
    return _signer().sign(f"{name}.{key_of(name, address)}").decode()


def read(token: str) -> tuple[str, str] | None:
    """Return the list and the key in a link, or None if it is invalid."""
    try:
        name, _, key = _signer().unsign(token).decode().partition(".")
    except (BadData, ValueError):
        return None
    return name, key


def _signer() -> Signer:
    return Signer(settings.current().signing_keys, salt="bulwark.unsubscribe")
