"""Random tokens, of which the database only stores the hash."""

import hashlib
from typing import Any

from sqlalchemy import select

from bulwark.database import db
from bulwark.identity import users
from bulwark.identity.models import BaseUser, with_roles

TOKEN_BYTES = 32


def hash_of(token: str) -> str:
    """Return the hash under which a token of 256 random bits is stored."""
    # A fast hash is enough, as no one can guess 256 bits (OWASP ASVS 5.0, 11.4.1).
    return hashlib.sha256(token.encode()).hexdigest()


def find(kind: Any, token: str) -> tuple[Any, BaseUser] | None:
    """Return the row of a token, and its user with roles, in one query."""
    model = users.model()
    query = (
        select(kind, model)
        .join(model, model.id == kind.user_id)
        .where(kind.token_hash == hash_of(token))
    )
    found = db.session.execute(with_roles(query, model)).unique().first()
    return (found[0], found[1]) if found else None
