"""Roles: who has them, and the permissions that they grant.

Each function records one event in the current transaction, which the caller commits.
`by` is the administrator who acts; None is the operator at the command line, who may do
everything.
"""

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress

from flask import current_app
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError

from bulwark.database import db
from bulwark.identity import administrators, sign_up_options
from bulwark.identity.authorization import RefusedError, check_grant, check_rights
from bulwark.identity.models import BaseUser, Role, users_roles
from bulwark.web.access import ADMINISTRATOR, PERMISSIONS

ROLE_NAME = re.compile(r"[a-z0-9][a-z0-9 _-]{0,79}")


def give_role(user: BaseUser, role: Role, *, by: BaseUser | None, reason: str) -> None:
    """Assign a role to a user, from their next request on."""
    administrators.serialize_changes()
    check_rights(by, [*user.roles, role])
    if role in user.roles:
        raise RefusedError(f"They already have the role {role.name}.")
    user.roles.append(role)
    administrators.record("authz_change", user, by, reason, role=role.name, given=True)


def take_role(user: BaseUser, role: Role, *, by: BaseUser | None, reason: str) -> None:
    """Remove a role from a user, from their next request on."""
    administrators.serialize_changes()
    check_rights(by, [*user.roles, role])
    if role not in user.roles:
        raise RefusedError(f"They do not have the role {role.name}.")
    if role.name == ADMINISTRATOR:
        administrators.require_another(user)
    user.roles.remove(role)
    administrators.record("authz_change", user, by, reason, role=role.name, given=False)


def make_roles() -> Iterator[str]:
    """Create declared roles that are missing in the database; yield their names.

    Existing roles keep their permissions: these are data that administrators change.
    """
    existing = set(db.session.scalars(select(Role.name)))
    for name, permissions in current_app.extensions["roles"].items():
        if name in existing:
            continue
        with suppress(IntegrityError):  # another process created it meanwhile
            with db.session.begin_nested():
                db.session.add(
                    Role(
                        name=name,
                        permissions=list(permissions),
                        requires_second_factor=name == ADMINISTRATOR,
                    )
                )
            yield name


def make_role(
    name: str,
    permissions: Iterable[str],
    requires_second_factor: bool,
    *,
    by: BaseUser | None,
    reason: str,
) -> Role:
    """Create a role that the code does not declare."""
    if not ROLE_NAME.fullmatch(name):
        raise RefusedError("Use lowercase letters, digits, spaces, - and _ in names.")
    granted = sorted(permissions)
    check_grant(by, granted)
    role = Role(
        name=name, permissions=granted, requires_second_factor=requires_second_factor
    )
    db.session.add(role)
    try:
        db.session.flush()
    except IntegrityError:
        db.session.rollback()
        raise RefusedError(f"The role {name} already exists.") from None
    _record_role("made", role, by, reason, granted, [])
    return role


def change_role(
    role: Role,
    permissions: Iterable[str],
    requires_second_factor: bool,
    *,
    by: BaseUser | None,
    reason: str,
) -> None:
    """Change the permissions of a role, from the next request of its users on."""
    administrators.serialize_changes()
    _check_changeable(role)
    before, after = set(role.permissions), set(permissions)
    check_rights(by, [role])
    check_grant(by, after)
    if role.name == sign_up_options.current().role and after & PERMISSIONS.keys():
        raise RefusedError("Each new account gets this role. Use another one.")
    if before == after and role.requires_second_factor == requires_second_factor:
        raise RefusedError("Nothing was changed.")
    role.permissions = sorted(after)
    role.requires_second_factor = requires_second_factor
    _record_role("changed", role, by, reason, after - before, before - after)


def delete_role(role: Role, *, by: BaseUser | None, reason: str) -> None:
    """Delete a role that no one has."""
    administrators.serialize_changes()
    _check_changeable(role)
    check_rights(by, [role])
    if role.name in current_app.extensions["roles"]:
        raise RefusedError("The code declares this role. Remove it there first.")
    if holders(role):
        raise RefusedError("Users have this role. Remove it from them first.")
    _record_role("deleted", role, by, reason, [], role.permissions)
    db.session.delete(role)


def holders(role: Role) -> int:
    """Return the number of users who have a role."""
    query = select(func.count()).where(users_roles.c.role_id == role.id)
    return db.session.scalar(query) or 0


def _check_changeable(role: Role) -> None:
    """Refuse changes of the administrators' role."""
    if role.name == ADMINISTRATOR:
        raise RefusedError("Administrators always have every permission.")


def _record_role(
    action: str,
    role: Role,
    by: BaseUser | None,
    reason: str,
    added: Iterable[str],
    removed: Iterable[str],
) -> None:
    administrators.record(
        "privilege_permissions_changed",
        None,
        by,
        reason,
        role=role.name,
        action=action,
        added=sorted(added),
        removed=sorted(removed),
        requires_second_factor=role.requires_second_factor,
    )
