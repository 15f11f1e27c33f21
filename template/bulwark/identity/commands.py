"""`flask accounts`: account administration for operators, recorded as events."""

from collections.abc import Iterator
from contextlib import contextmanager

import click
from flask.cli import AppGroup
from sqlalchemy import select

from bulwark.database import db
from bulwark.identity import accounts, invitations, roles, users
from bulwark.identity.authorization import RefusedError
from bulwark.identity.models import BaseUser, Role

commands = AppGroup("accounts", help="Accounts and roles.")

reason_option = click.option(
    "--reason", default="", help="The reason, for the security history."
)
required_reason_option = click.option(
    "--reason", required=True, help="The reason, for the security history."
)


@commands.command("list")
@click.option("--role", "role_name", help="Only users with this role.")
@click.option("--locked", is_flag=True, help="Only locked accounts.")
def list_accounts(role_name: str | None, locked: bool) -> None:
    """List users with their roles and second factors."""
    model = users.model()
    query = users.query().order_by(model.email)
    if role_name:
        query = query.where(model.roles.any(Role.id == _role(role_name).id))
    if locked:
        query = query.where(model.active.is_(False))
    for user in db.session.scalars(query.execution_options(yield_per=1000)):
        click.echo("  ".join([user.email, *_details(user)]))


@commands.command()
@click.argument("email", required=False)
@click.option("--role", "role_name", help="A role to assign to them.")
@reason_option
def invite(email: str | None, role_name: str | None, reason: str) -> None:
    """Create an account, and print a one-time link to set its password.

    Without EMAIL, invite the first administrator, from the setting admin_email.
    """
    with _transaction():
        if email:
            message = _invite(email, role_name, reason)
        else:
            message = invitations.invite_first_administrator()
    click.echo(message)


@commands.command()
@click.argument("email")
@click.argument("role")
@reason_option
def grant(email: str, role: str, reason: str) -> None:
    """Assign a role to a user."""
    with _transaction():
        user = _user(email)
        roles.give_role(user, _role(role), by=None, reason=reason)
    names = ", ".join(sorted(role.name for role in user.roles))
    click.echo(f"{user.email} has these roles: {names}.")


@commands.command()
@click.argument("email")
@click.argument("role")
@reason_option
def take(email: str, role: str, reason: str) -> None:
    """Remove a role from a user."""
    with _transaction():
        user = _user(email)
        roles.take_role(user, _role(role), by=None, reason=reason)
    click.echo(f"{user.email} no longer has the role {role}.")


@commands.command()
@click.argument("email")
@required_reason_option
def lock(email: str, reason: str) -> None:
    """Lock an account and end its sessions."""
    with _transaction():
        accounts.lock(_user(email), by=None, reason=reason)
    click.echo(f"{email} is locked and signed out.")


@commands.command()
@click.argument("email")
@reason_option
def unlock(email: str, reason: str) -> None:
    """Unlock an account."""
    with _transaction():
        accounts.unlock(_user(email), by=None, reason=reason)
    click.echo(f"{email} can sign in again.")


@commands.command()
@click.argument("email")
@required_reason_option
def reset_factors(email: str, reason: str) -> None:
    """Remove all second factors of a user who lost them.

    Verify their identity first, by video or in person, never by email alone.
    """
    with _transaction():
        accounts.reset_factors(_user(email), by=None, reason=reason)
    click.echo(f"{email} no longer has a second factor, and is signed out.")


@commands.command()
@click.argument("email")
@reason_option
def sign_out(email: str, reason: str) -> None:
    """End all sessions of a user."""
    with _transaction():
        accounts.sign_out(_user(email), by=None, reason=reason)
    click.echo(f"{email} is signed out everywhere.")


def _invite(email: str, role_name: str | None, reason: str) -> str:
    role = _role(role_name) if role_name else None
    user, link = invitations.invite(email, by=None, reason=reason)
    if role:
        roles.give_role(user, role, by=None, reason=reason)
    return invitations.link_text(user.email, link)


@contextmanager
def _transaction() -> Iterator[None]:
    """Commit, or roll back and report why the action was refused."""
    try:
        yield
    except RefusedError as error:
        db.session.rollback()
        raise click.ClickException(str(error)) from None
    db.session.commit()


def _user(email: str) -> BaseUser:
    user = users.find(email)
    if user is None:
        raise click.ClickException(f"no account has the email address {email}")
    return user


def _role(name: str) -> Role:
    role = db.session.scalar(select(Role).where(Role.name == name))
    if role is None:
        names = ", ".join(db.session.scalars(select(Role.name).order_by(Role.name)))
        raise click.ClickException(f"there is no role {name!r}; the roles are {names}")
    return role


def _details(user: BaseUser) -> Iterator[str]:
    if not user.active:
        yield "locked"
    if user.password is None and not user.webauthn:
        yield "no password yet"
    yield "second factor" if user.has_second_factor else "no second factor"
    if user.roles:
        yield ", ".join(sorted(role.name for role in user.roles))
