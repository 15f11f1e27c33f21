"""Emailed links to choose a password, when an administrator caused them."""

from datetime import timedelta

from flask import render_template
from flask_security.recoverable import generate_reset_password_token

from bulwark import mail
from bulwark.identity.authorization import RefusedError
from bulwark.identity.models import BaseUser
from bulwark.identity.security.forms import RESET_LINK_WORKS
from bulwark.web import attempts

HOUR = timedelta(hours=1)
EMAILS_AN_HOUR = 5  # to one address, from all administrators together


def create(user: BaseUser) -> str:
    """Return a one-time link to choose a password."""
    token: str = generate_reset_password_token(user)  # type: ignore[no-untyped-call]
    return mail.link("security.reset_password", token=token)


def send(
    user: BaseUser,
    link: str,
    subject: str,
    template: str,
    within: timedelta = RESET_LINK_WORKS,
) -> None:
    """Email a user a link to choose a password, which works for some time."""
    text = render_template(
        f"security/email/{template}.txt",
        user=user,
        link=link,
        hours=int(within.total_seconds() // 3600),
        later=mail.link("security.forgot_password"),
    )
    mail.send(subject, user.email, text)


def count_email(email: str, by: BaseUser | None) -> None:
    """Limit the emails that administrators, but not the operator, send an address."""
    if by is None:
        return
    if attempts.count("administrator's email", email, HOUR).count > EMAILS_AN_HOUR:
        raise RefusedError(
            f"{email} got {EMAILS_AN_HOUR} links within an hour. The last one works."
        )
