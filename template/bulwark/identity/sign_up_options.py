"""The team's choices about new accounts, the argument `sign_up` of `init_app`."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from flask import Flask, current_app
from sqlalchemy import inspect

from bulwark.identity import profile
from bulwark.identity.models import VERSION_LENGTH, BaseUser
from bulwark.identity.profile import ProfileForm
from bulwark.web import access

Mode = Literal["public", "invitation", "closed"]
MOST_HOURS = 30 * 24
# The base's own fields of the same forms.
RESERVED = ("accept_terms", "csrf_token", "next", "password", "submit")


class SignUpError(Exception):
    """A choice about sign-up does not fit the service."""


@dataclass(frozen=True, kw_only=True)
class Terms:
    """Terms that users accept when they create an account, and after each change.

    Args:
        version: any text, such as a date. When it changes, all users are asked again.
        page: the endpoint of a public page of yours, or a URL with https://.
    """

    version: str
    page: str


@dataclass(frozen=True, kw_only=True)
class SignUp:
    """Who may create an account, and what they enter.

    Args:
        mode: "public" lets anyone sign up. With "invitation", the sign-up page explains
            that administrators invite. With "closed", there is no such page, either;
            administrators still invite.
        form: your fields, beside the password.
        terms: the terms to accept.
        role: the role of each new account, one of your roles.
        invitation_hours: how long an invitation works, from 1 to 720 hours.
    """

    mode: Mode = "public"
    form: type[ProfileForm] | None = None
    terms: Terms | None = None
    role: str | None = None
    invitation_hours: int = 1


def current() -> SignUp:
    """Return the choices of the current app."""
    options: SignUp = current_app.extensions["sign_up"]
    return options


def init_app(
    app: Flask,
    options: SignUp,
    user_model: type[BaseUser],
    roles: Mapping[str, Sequence[str]],
) -> None:
    """Check the choices, and give them to the templates.

    Raises:
        SignUpError: a choice can't work.
    """
    wrong = [
        *_wrong_values(options),
        *_wrong_fields(options.form, user_model),
        *_wrong_terms(app, options.terms),
        *_wrong_role(options.role, roles),
    ]
    if wrong:
        raise SignUpError(
            "the service did not start, because of `sign_up` in app/__init__.py:\n"
            + "\n".join(f"- {w}" for w in wrong)
        )
    app.extensions["sign_up"] = options

    @app.context_processor
    def _for_templates() -> dict[str, object]:
        options = current()
        return {
            "sign_up_mode": options.mode,
            "has_profile": options.form is not None,
            "has_terms": options.terms is not None,
        }


def _wrong_values(options: SignUp) -> Iterator[str]:
    if options.mode not in get_args(Mode):
        modes = ", ".join(map(repr, get_args(Mode)))
        yield f"the mode {options.mode!r} is not one of {modes}"
    hours = options.invitation_hours
    if type(hours) is not int or not 1 <= hours <= MOST_HOURS:
        yield (
            f"invitation_hours can't be used: {hours!r} is not a whole number from 1 to"
            f" {MOST_HOURS}, which is 30 days"
        )


def _wrong_fields(
    form: type[ProfileForm] | None, user_model: type[BaseUser]
) -> Iterator[str]:
    if form is None:
        return
    if not (isinstance(form, type) and issubclass(form, ProfileForm)):
        yield f"the form {form!r} is not a subclass of bulwark.ProfileForm"
        return
    columns = inspect(user_model).columns
    for name in profile.names_of(form):
        field = f"the field {form.__name__}.{name}"
        if name in RESERVED or hasattr(BaseUser, name):
            yield f"{field} has a name that the base uses: choose another"
        elif name not in columns:
            yield (
                f"{field} is no column of {user_model.__name__} in app/models.py: add"
                " the column, or remove the field"
            )
        elif profile.is_required(columns[name]):
            column = columns[name]
            if column.unique or profile.blank_of(column) is None:
                yield (
                    f"the column {name} of {user_model.__name__} needs a default, or"
                    " must allow NULL, for invited users who have not filled in the"
                    " form yet: it is unique, or its type has no empty value"
                )


def _wrong_terms(app: Flask, terms: Terms | None) -> Iterator[str]:
    if terms is None:
        return
    if not 1 <= len(terms.version) <= VERSION_LENGTH:
        yield (
            f"the version of the terms can't be used: {terms.version!r} does not have 1"
            f" to {VERSION_LENGTH} characters"
        )
    if terms.page.startswith("https://"):
        return
    if terms.page not in app.view_functions:
        yield (
            f"the page of the terms is {terms.page!r}, which is neither an endpoint"
            " such as 'app.terms', of a blueprint that is registered above, nor a URL"
            " that starts with https://"
        )
    elif access.declared_for(app, terms.page) != access.PUBLIC:
        yield (
            f"the page of the terms, {terms.page}, is not public, so nobody can read"
            " them before they accept: declare it with @public"
        )


def _wrong_role(role: str | None, roles: Mapping[str, Sequence[str]]) -> Iterator[str]:
    if role is None:
        return
    if role not in roles:
        yield (
            f"each new account would get the role {role!r}, which is not declared: add"
            " it to ROLES in app/permissions.py"
        )
    for name in sorted(set(roles.get(role, ())) & access.PERMISSIONS.keys()):
        yield (
            f"each new account would get the role {role!r}, and so the permission"
            f" {name!r} of administrators: give it to another role"
        )
