"""New accounts: the form that their users fill in, and what each starts with."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from flask import current_app
from flask_security import forms as stock
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from wtforms import SubmitField

from bulwark.database import db
from bulwark.identity import profile, sign_up_options, users
from bulwark.identity.form_data import subclass
from bulwark.identity.models import BaseUser, Role
from bulwark.identity.profile import ProfileForm
from bulwark.identity.security.forms import NewPasswordField
from bulwark.identity.sign_up_options import SignUp
from bulwark.identity.terms import TermsField
from bulwark.web.access import PERMISSIONS


class AddressTakenError(Exception):
    """Another request created an account for the same address."""


class UnsafeRoleError(Exception):
    """The role of each new account has a permission of administrators."""


class ChecksPassword:
    """A mixin of the form that checks its password."""

    password: Any
    address = ""

    def validate(self, **options: Any) -> bool:
        """Apply the password policy after the other validators."""
        valid = bool(super().validate(**options))  # type: ignore[misc]
        if self.password.errors:
            return False
        util = current_app.extensions["security"].password_util
        bad, self.password.data = util.validate(
            self.password.data, True, email=self.address
        )
        self.password.errors = bad or []
        return valid and not bad


def form_for(
    email: str, button: str, formdata: Mapping[str, Any] | None, **options: Any
) -> ProfileForm:
    """Return the form of a new account: the team's fields, a password, the terms."""
    kind = _form_class(sign_up_options.current(), button)
    form: ProfileForm = kind(formdata=formdata, **options)
    form.address = email
    return form


@cache
def _form_class(options: SignUp, button: str) -> type[ProfileForm]:
    """Return a class with the team's fields first, as they were declared first."""
    base = options.form or ProfileForm
    fields: dict[str, Any] = {
        "password": NewPasswordField(
            label="Password",
            validators=[stock.IsString(), stock.password_required],
            render_kw={"autocomplete": "new-password"},
        )
    }
    if options.terms:
        fields["accept_terms"] = TermsField(options.terms)
    fields["submit"] = SubmitField(button)
    return subclass(base, fields, ChecksPassword)


def create(email: str, form: ProfileForm | None = None, **values: Any) -> BaseUser:
    """Create an account, in the current transaction.

    Args:
        email: the address, which is normalized.
        form: the valid form of the new user. Without it, required columns of the team's
            form are blank until the user fills it in.
        values: other columns.

    Raises:
        AddressTakenError: there is an account; the transaction was rolled back.
        UnsafeRoleError: the role of new accounts has a permission of administrators.
    """
    user: BaseUser = users.datastore().create_user(  # type: ignore[assignment]
        email=email, roles=_roles(), **values
    )
    if form is None:
        profile.fill_blanks(sign_up_options.current().form, user)
    else:
        profile.fill(user, form)
    try:
        db.session.flush()
    except IntegrityError:
        db.session.rollback()
        if users.find(email):
            raise AddressTakenError(email) from None
        raise  # A column of the team's rejects the value.
    return user


def details_of(user: BaseUser) -> dict[str, str]:
    """Return the details of the event that a user was created."""
    return {"role": user.roles[0].name} if user.roles else {}


def _roles() -> list[Role]:
    """Return the role that each new account has, if there is one."""
    name = sign_up_options.current().role
    if not name:
        return []
    role = db.session.scalars(select(Role).where(Role.name == name)).one()
    if unsafe := sorted(PERMISSIONS.keys() & set(role.permissions)):
        raise UnsafeRoleError(
            f"each new account gets the role {name}, which grants {unsafe[0]}: remove"
            " this permission at /admin/roles"
        )
    return [role]
