"""The pages that assign a role to a user, or remove one."""

from flask import current_app
from flask.typing import ResponseReturnValue

from bulwark.admin.confirmation import (
    FORM,
    ROLE,
    USER,
    act_on,
    blueprint,
    managed,
    managed_role,
)
from bulwark.identity import roles
from bulwark.identity.models import Role
from bulwark.web.access import permission, recent


@blueprint.route(f"{USER}{ROLE}/give", methods=FORM)
@permission("roles:write")
@recent
def give_role(user_id: int, role_id: int) -> ResponseReturnValue:
    """Assign a role to a user."""
    user, role = managed(user_id), managed_role(role_id)
    return act_on(
        user,
        lambda **why: roles.give_role(user, role, **why),
        title=f"Assign the role {role.name} to {user.email}",
        text=f"From their next request on, they have these permissions:"
        f" {_granted_by(role)}",
        button="Assign role",
        done=f"{user.email} now has the role {role.name}.",
    )


@blueprint.route(f"{USER}{ROLE}/take", methods=FORM)
@permission("roles:write")
@recent
def take_role(user_id: int, role_id: int) -> ResponseReturnValue:
    """Remove a role from a user."""
    user, role = managed(user_id), managed_role(role_id)
    return act_on(
        user,
        lambda **why: roles.take_role(user, role, **why),
        title=f"Remove the role {role.name} from {user.email}",
        text=f"From their next request on, they lose these permissions:"
        f" {_granted_by(role)}",
        button="Remove role",
        done=f"{user.email} no longer has the role {role.name}.",
    )


def _granted_by(role: Role) -> str:
    meanings = current_app.extensions["permissions"]
    allowed = sorted(meanings.get(name, name) for name in role.get_permissions())
    return "; ".join(allowed) + "." if allowed else "none."
