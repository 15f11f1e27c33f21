"""Administrators: how many there are, and what all their actions have in common."""

from sqlalchemy import func, select, update

from bulwark.audit import events
from bulwark.database import db
from bulwark.identity import users
from bulwark.identity.authorization import RefusedError
from bulwark.identity.models import BaseUser, Role
from bulwark.web.access import ADMINISTRATOR


def count() -> int:
    """Return the number of administrators."""
    model = users.model()
    administrators = model.roles.any(Role.name == ADMINISTRATOR)
    return db.session.scalar(select(func.count()).where(administrators)) or 0


def require_another(user: BaseUser) -> None:
    """Refuse to lock or demote the last administrator who can sign in."""
    model = users.model()
    query = select(model.id).where(
        model.roles.any(Role.name == ADMINISTRATOR),
        model.active,
        # A pending invitation does not count.
        model.confirmed_at.is_not(None),
    )
    if list(db.session.scalars(query.limit(2))) == [user.id]:
        raise RefusedError(
            f"{user.email} is the last administrator. Appoint another one first."
        )


def serialize_changes() -> None:
    """Block other changes of roles or locks until this transaction has ended.

    It locks the row of the administrator role with an update that changes nothing, as
    SQLite has no SELECT … FOR UPDATE. It expires what was read before, which may be
    stale.
    """
    db.session.flush()
    db.session.execute(
        update(Role)
        .where(Role.name == ADMINISTRATOR)
        .values(name=ADMINISTRATOR)
        .execution_options(synchronize_session=False)
    )
    db.session.expire_all()


def record(
    name: str,
    user: BaseUser | None,
    by: BaseUser | None,
    reason: str,
    **details: object,
) -> None:
    """Record an action; without an administrator, the operator acted."""
    if by is None:
        details["by"] = "operator"
    events.record(name, user, actor=by, reason=reason, **details)
