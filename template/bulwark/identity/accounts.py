"""What an operator does to accounts: roles and the first administrator."""

from collections.abc import Iterator
from contextlib import suppress

import click
from flask import current_app, url_for
from flask.cli import AppGroup
from flask_security import SQLAlchemyUserDatastore
from flask_security.recoverable import generate_reset_password_token
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from bulwark import config
from bulwark.database import db, utcnow
from bulwark.identity.models import ADMINISTRATOR, BaseUser, Role

commands = AppGroup("accounts", help="Accounts and roles.")


def _datastore() -> SQLAlchemyUserDatastore:
    datastore: SQLAlchemyUserDatastore = current_app.extensions["security"].datastore
    return datastore


def make_roles() -> Iterator[str]:
    """Add the roles that the code declares and the database lacks; yield their names.

    A role that exists keeps its permissions: they are data, changed by administrators.
    """
    there = set(db.session.scalars(select(Role.name)))
    for name, permissions in current_app.extensions["roles"].items():
        if name in there:
            continue
        with suppress(IntegrityError):  # another process made it meanwhile
            with db.session.begin_nested():
                db.session.add(
                    Role(
                        name=name,
                        permissions=list(permissions),
                        requires_second_factor=name == ADMINISTRATOR,
                    )
                )
            yield name


def invitation() -> str:
    """Return a one-time link with which the first administrator sets a password.

    Their address is the setting `admin_email`. Once they have a password there is no
    link any more: a forgotten password is mended by mail, as everybody's.
    """
    datastore = _datastore()
    email = config.current().admin_email.lower()
    user = datastore.find_user(email=email)
    if user is None:
        user = datastore.create_user(email=email, password=None, confirmed_at=utcnow())
    datastore.add_role_to_user(user, ADMINISTRATOR)
    db.session.flush()
    if user.password:
        return f"The administrator {email} has a password already."
    token: str = generate_reset_password_token(user)  # type: ignore[no-untyped-call]
    with current_app.test_request_context(base_url=config.current().base_url):
        link = url_for("security.reset_password", token=token, _external=True)
    return f"{email} sets a password here, once, within an hour:\n{link}"


def _find(email: str, role: str) -> tuple[BaseUser, Role]:
    """Return the two, or say which is missing."""
    user: BaseUser | None = _datastore().find_user(email=email.lower())  # type: ignore[assignment]
    if user is None:
        raise click.ClickException(f"nobody has an account with the address {email}")
    found = db.session.scalar(select(Role).where(Role.name == role))
    if found is None:
        names = ", ".join(db.session.scalars(select(Role.name).order_by(Role.name)))
        raise click.ClickException(f"there is no role {role!r}; there are {names}")
    return user, found


@commands.command()
@click.argument("email")
@click.argument("role")
def grant(email: str, role: str) -> None:
    """Give a person a role."""
    user, found = _find(email, role)
    user.roles = list({*user.roles, found})
    db.session.commit()
    click.echo(f"{user.email} has {', '.join(sorted(r.name for r in user.roles))}.")


@commands.command()
@click.argument("email")
@click.argument("role")
def take(email: str, role: str) -> None:
    """Take a role from a person."""
    user, found = _find(email, role)
    user.roles = [r for r in user.roles if r != found]
    db.session.commit()
    click.echo(f"{user.email} has the role {found.name} no longer.")


@commands.command()
def invite() -> None:
    """Print a one-time link with which the first administrator sets a password."""
    click.echo(invitation())
    db.session.commit()
