"""Random tokens, of which the database only stores the hash."""

import hashlib
from functools import cache
from typing import Any, TypeVar

from sqlalchemy import Select, bindparam, inspect, select
from sqlalchemy.orm import Mapper

from bulwark.database import rows
from bulwark.identity import users
from bulwark.identity.models import BaseUser, Role, users_roles

TOKEN_BYTES = 32
T = TypeVar("T")


def hash_of(token: str) -> str:
    """Return the hash under which a token of 256 random bits is stored."""
    # A fast hash is enough, as no one can guess 256 bits (OWASP ASVS 5.0, 11.4.1).
    return hashlib.sha256(token.encode()).hexdigest()


def find(kind: type[T], token: str) -> tuple[T, BaseUser] | None:
    """Return the row of a token, and its user with roles, in one round trip.

    The user is attached to the session. The row is not, and has no relationships.
    """
    model = users.model()
    found = rows.fetch(
        _lookup(inspect(kind), inspect(model)), {"token_hash": hash_of(token)}
    )
    if not found:
        return None
    own = len(rows.columns_of(kind))
    users_end = own + len(rows.columns_of(model))
    roles = [
        rows.load(Role, row[users_end:]) for row in found if row[users_end] is not None
    ]
    first = found[0]
    user = rows.load(model, first[own:users_end], roles=[r for r in roles if r])
    return (rows.instance_of(kind, first[:own]), user) if user else None


@cache
def _lookup(of_kind: Mapper[Any], of_users: Mapper[BaseUser]) -> Select[Any]:
    """Return the query for a token, a row for each role of its user."""
    kind, model = of_kind.class_, of_users.class_
    held = users_roles.c
    return (
        select(*rows.columns_of(kind), *rows.columns_of(model), *rows.columns_of(Role))
        .select_from(kind)
        .join(model, model.id == kind.user_id)
        .outerjoin(users_roles, held.user_id == model.id)
        .outerjoin(Role, Role.id == held.role_id)
        .where(kind.token_hash == bindparam("token_hash"))
    )
