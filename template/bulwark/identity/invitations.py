"""Invitations: accounts whose users choose their own password.

Each function records one event in the current transaction, which the caller commits.
`by` is the administrator who acts; None is the operator at the command line, who may do
everything.
"""

from flask import current_app
from flask_security.mail_util import EmailValidateException
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from bulwark import settings
from bulwark.database import db
from bulwark.identity import administrators, password_links, roles, users
from bulwark.identity.authorization import RefusedError, check_rights
from bulwark.identity.models import BaseUser, Role
from bulwark.web.access import ADMINISTRATOR

FIRST = "the first administrator"


def invite(email: str, *, by: BaseUser | None, reason: str) -> tuple[BaseUser, str]:
    """Create an account without a password; return it, and a link to choose one.

    An invited user who has not used their link yet gets another one.
    """
    try:
        email = current_app.extensions["security"].mail_util.validate(email)
    except EmailValidateException:
        raise RefusedError("Enter an email address such as name@example.com.") from None
    known = users.find(email)
    if known is not None and not known.active:
        raise RefusedError("This account is locked. Unlock it first.")
    password_links.count_email(email, by)
    if known is None:
        user = _create(email)
        administrators.record("user_created", user, by, reason)
        return user, password_links.create(user)
    check_rights(by, known.roles)
    if known.password or known.webauthn:
        raise RefusedError(f"{email} already has an account.")
    administrators.record("authz_admin", known, by, reason, action="invite_again")
    return known, password_links.create(known)


def send(user: BaseUser, link: str) -> None:
    """Email a user the link that `invite` returned."""
    password_links.send(
        user, link, f"Your account at {settings.current().name}", "invitation"
    )


def invite_first_administrator(*, again: bool = True) -> str:
    """Return a message with a one-time link for the first administrator's password.

    Their address is the setting `admin_email`. Once they have a password, there is no
    link: like everyone else, they reset a forgotten password by email. Without `again`,
    an administrator who was already invited gets no second link.
    """
    email = settings.current().admin_email.lower()
    user, link = users.find(email), ""
    if user is None or (again and not user.password):
        user, link = invite(email, by=None, reason=FIRST)
    role = db.session.scalars(select(Role).where(Role.name == ADMINISTRATOR)).one()
    if role not in user.roles:
        roles.give_role(user, role, by=None, reason=FIRST)
    if not user.password and not link:
        return (
            f"{email} has not set a password yet."
            " For a new link, run: bin/flask accounts invite"
        )
    if not link:
        return f"The administrator {email} already has a password."
    return f"Set the password of {email} here, once, within an hour:\n{link}"


def _create(email: str) -> BaseUser:
    user: BaseUser = users.datastore().create_user(email=email, password=None)  # type: ignore[assignment]
    try:
        db.session.flush()
    except IntegrityError:  # Another request was faster.
        db.session.rollback()
        raise RefusedError(f"{email} already has an account.") from None
    return user
