"""Roles: their permissions, and the pages to change them."""

from typing import Any

from flask import current_app, jsonify, render_template, url_for
from flask.typing import ResponseReturnValue
from flask_login import current_user
from flask_security import forms as stock
from sqlalchemy import func, select
from wtforms import BooleanField, SelectMultipleField, StringField, SubmitField
from wtforms.validators import DataRequired
from wtforms.widgets import CheckboxInput, ListWidget

from bulwark.admin.confirmation import (
    FORM,
    ROLE,
    ReasonForm,
    act,
    blueprint,
    managed_role,
    reason_field,
)
from bulwark.database import db
from bulwark.identity import roles
from bulwark.identity.authorization import may_manage
from bulwark.identity.models import Role, permissions_of, users_roles
from bulwark.web.access import ADMINISTRATOR, permission, recent
from bulwark.web.errors import wants_json


class RoleForm(stock.Form):
    """The form that defines a role."""

    name = StringField(
        "Name",
        description="Lowercase letters, digits, spaces, - and _. Example: night shift",
        validators=[stock.IsString(), DataRequired("Enter a name for the role.")],
        render_kw={"autocomplete": "off", "maxlength": 80},
    )
    permissions = SelectMultipleField(
        "Permissions",
        widget=ListWidget(),
        option_widget=CheckboxInput(),
    )
    requires_second_factor = BooleanField("Require a second factor")
    reason = reason_field()
    submit = SubmitField("Save")

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        own = permissions_of(current_user.roles)
        self.permissions.choices = [
            (name, f"{meaning} ({name})")
            for name, meaning in current_app.extensions["permissions"].items()
            if name in own
        ]


@blueprint.get("/roles", endpoint="roles")
@permission("users:read")
def list_roles() -> ResponseReturnValue:
    """List roles with their permissions and the number of users who have them."""
    query = select(users_roles.c.role_id, func.count()).group_by(users_roles.c.role_id)
    counts: dict[int, int] = dict(db.session.execute(query).all())
    found = db.session.scalars(select(Role).order_by(Role.name)).all()
    if wants_json():
        return jsonify(
            roles=[
                {
                    "id": role.id,
                    "name": role.name,
                    "permissions": sorted(role.get_permissions()),
                    "requires_second_factor": role.requires_second_factor,
                    "people": counts.get(role.id, 0),
                }
                for role in found
            ]
        )
    return render_template(
        "bulwark/admin/roles.html",
        roles=found,
        held=counts,
        meanings=current_app.extensions["permissions"],
        declared=current_app.extensions["roles"],
        administrator=ADMINISTRATOR,
        may_manage=may_manage,
    )


@blueprint.route("/roles/new", methods=FORM)
@permission("roles:write")
@recent
def new_role() -> ResponseReturnValue:
    """Create a role."""
    form = RoleForm()
    return act(
        form,
        lambda **why: roles.make_role(form.name.data.strip(), *_grants(form), **why),
        title="Create a role",
        text="You can only grant permissions that you have yourself.",
        done="The role was created.",
        back=url_for(".roles"),
    )


@blueprint.route(ROLE, methods=FORM, endpoint="role")
@permission("roles:write")
@recent
def change_role(role_id: int) -> ResponseReturnValue:
    """Change the permissions of a role."""
    found = managed_role(role_id)
    form = RoleForm(obj=found)
    del form.name
    return act(
        form,
        lambda **why: roles.change_role(found, *_grants(form), **why),
        title=f"Change the role {found.name}",
        text="Changes apply from the next request of everyone with this role.",
        done=f"The role {found.name} was changed.",
        back=url_for(".roles"),
    )


@blueprint.route(f"{ROLE}/delete", methods=FORM)
@permission("roles:write")
@recent
def delete_role(role_id: int) -> ResponseReturnValue:
    """Delete a role that no one has."""
    found = managed_role(role_id)
    name = found.name
    form = ReasonForm()
    form.submit.label.text = "Delete the role"
    return act(
        form,
        lambda **why: roles.delete_role(found, **why),
        title=f"Delete the role {name}",
        text="You can only delete a role that no one has.",
        done=f"The role {name} was deleted.",
        back=url_for(".roles"),
    )


def _grants(form: RoleForm) -> tuple[list[str], bool]:
    return form.permissions.data or [], bool(form.requires_second_factor.data)
