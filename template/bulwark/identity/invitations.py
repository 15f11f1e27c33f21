"""Invitations: accounts whose users choose their own password.

Each function records one event in the current transaction, which the caller commits.
`by` is the administrator who acts; None is the operator at the command line, who may do
everything.
"""

from datetime import timedelta

from flask import current_app
from flask_security.mail_util import EmailValidateException
from sqlalchemy import select

from bulwark import settings
from bulwark.database import db
from bulwark.identity import (
    administrators,
    new_accounts,
    password_links,
    roles,
    sign_up_options,
    users,
)
from bulwark.identity.authorization import RefusedError, check_rights
from bulwark.identity.models import BaseUser, Role
from bulwark.identity.new_accounts import AddressTakenError
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
        try:
            user = new_accounts.create(email, password=None)
        except AddressTakenError:  # Another request was faster.
            raise RefusedError(f"{email} already has an account.") from None
        details = new_accounts.details_of(user)
        administrators.record("user_created", user, by, reason, **details)
        return user, password_links.create(user)
    check_rights(by, known.roles)
    if known.password or known.webauthn:
        raise RefusedError(f"{email} already has an account.")
    administrators.record("authz_admin", known, by, reason, action="invite_again")
    return known, password_links.create(known)


def send(user: BaseUser, link: str) -> None:
    """Email a user the link that `invite` returned."""
    subject = f"Your account at {settings.current().name}"
    within = timedelta(hours=sign_up_options.current().invitation_hours)
    password_links.send(user, link, subject, "invitation", within)


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
    return link_text(email, link)


def link_text(email: str, link: str) -> str:
    """Return the operator's message with an invitation's link."""
    hours = sign_up_options.current().invitation_hours
    within = "an hour" if hours == 1 else f"{hours} hours"
    return f"Set the password of {email} here, once, within {within}:\n{link}"
