"""What an operator does to accounts: roles and the first administrator."""

from collections.abc import Iterator

import click
from flask import current_app, url_for
from flask.cli import AppGroup
from flask_security import SQLAlchemyUserDatastore
from flask_security.recoverable import generate_reset_password_token
from sqlalchemy import select

from bulwark import config
from bulwark.database import db, utcnow
from bulwark.identity.models import Role

ADMINISTRATOR = "administrator"

commands = AppGroup("accounts", help="Accounts and roles.")


def make_roles() -> Iterator[str]:
    """Add the roles that the code declares and the database lacks; yield their names.

    A role that exists keeps its permissions: they are data, changed by administrators.
    """
    there = set(db.session.scalars(select(Role.name)))
    for name, permissions in current_app.extensions["roles"].items():
        if name not in there:
            db.session.add(Role(name=name, permissions=list(permissions)))
            yield name


def invitation() -> str:
    """Return a one-time link with which the first administrator sets a password.

    Their address is the setting `admin_email`. Once they have a password there is no
    link any more: a forgotten password is mended by mail, as everybody's.
    """
    datastore: SQLAlchemyUserDatastore = current_app.extensions["security"].datastore
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


@commands.command()
def invite() -> None:
    """Print a one-time link with which the first administrator sets a password."""
    click.echo(invitation())
    db.session.commit()
