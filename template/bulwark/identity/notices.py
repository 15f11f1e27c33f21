"""What is told by mail: changes of an account's security, and what looks like misuse.

A notice is written where its event is recorded, in the same transaction, so an action
that is recorded is told, whether its person, an administrator or the operator did it.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from flask import Flask, render_template
from sqlalchemy import select

from bulwark import config, events, mail
from bulwark.database import db
from bulwark.events import SecurityEvent
from bulwark.identity import devices
from bulwark.identity.models import BaseUser

RESET, TOKENS = "security.forgot_password", "tokens.index"
SELDOM = timedelta(hours=1)

# What to do "if not": if it was not the person who is told.
SIGN_OUT = "set a new password at once: it signs out whoever is in."
TAKEN = (
    "somebody else is in your account. Set a new password at once, it signs them out."
    " If you can't sign in any more, write to {admin}."
)
ASK = "write to {admin}."


@dataclass(frozen=True, kw_only=True)
class Notice:
    """What one kind of event tells its person.

    Args:
        subject: of the mail.
        what: what happened.
        otherwise: what to do if it was not the person.
        endpoint: the page where they do it.
        only_if: the detail of the event without which it is not told.
        seldom: tell it once an hour, however often it happens.
        apart: whoever records it sends it, with a link of its own.
    """

    subject: str
    what: str
    otherwise: str
    endpoint: str = ""
    only_if: str = ""
    seldom: bool = False
    apart: bool = False


NEW_DEVICE = Notice(
    subject="New sign-in to {service}",
    what="Somebody signed in to your account at {service} with a device that it has"
    " not seen before.",
    otherwise=TAKEN,
    endpoint=RESET,
    only_if="new_device",
)

NOTICES = {
    "authn_login_success": NEW_DEVICE,
    "authn_login_successafterfail": NEW_DEVICE,
    "authn_login_fail_max": Notice(
        subject="Too many wrong tries for {service}",
        what="Somebody tried to sign in to your account at {service} and was wrong too"
        " often ({factor}). They did not get in, and further tries have to wait.",
        otherwise="your account held. Do you use its password elsewhere too, or is it"
        " easy to guess? Then set a better one.",
        endpoint=RESET,
        seldom=True,
    ),
    "authn_mfa_fail": Notice(
        subject="Right password, wrong second step for {service}",
        what="Somebody gave your right password for {service}, then failed at the"
        " second step ({factor}). They did not get in.",
        otherwise="somebody knows your password. Set a new one at once, and change it"
        " wherever else you use it.",
        endpoint=RESET,
        seldom=True,
    ),
    "authn_password_change": Notice(
        subject="Your password for {service} was changed",
        what="The password of your account at {service} was changed. All other devices"
        " are signed out; access tokens go on working.",
        otherwise=SIGN_OUT,
        endpoint=RESET,
    ),
    "authn_reset_completed": Notice(
        subject="Your password for {service} was set anew",
        what="The password of your account at {service} was set with a link that we"
        " mailed you. All devices are signed out, and access tokens are revoked.",
        otherwise="somebody may read your mail. Change the password of your mailbox"
        " first, then set a new one here.",
        endpoint=RESET,
    ),
    "authn_mfa_enrolled": Notice(
        subject="A second factor was added at {service}",
        what="Your account at {service} has a new second factor: {factor}.",
        otherwise=TAKEN,
        endpoint=RESET,
    ),
    "authn_mfa_removed": Notice(
        subject="A second factor was removed at {service}",
        what="Your account at {service} lost a second factor: {factor}.",
        otherwise=TAKEN,
        endpoint=RESET,
    ),
    "authn_recovery_codes_made": Notice(
        subject="New recovery codes for {service}",
        what="New recovery codes for your account at {service} were made. Codes from"
        " before work no longer.",
        otherwise=TAKEN,
        endpoint=RESET,
    ),
    "authn_recovery_code_used": Notice(
        subject="A recovery code was used at {service}",
        what="Somebody signed in to your account at {service} with your password and"
        " one of your recovery codes. That code works no longer.",
        otherwise="somebody has your password and your codes. Set a new password at"
        " once, then make new codes.",
        endpoint=RESET,
    ),
    "authn_token_created": Notice(
        subject="A new access token at {service}",
        what="An access token for your account at {service} was made. A program that"
        " has it may act in your name.",
        otherwise="revoke it here, then change your password.",
        endpoint=TOKENS,
    ),
    "authn_login_lock": Notice(
        subject="Your account at {service} was locked",
        what="Your account at {service} was locked. You are signed out everywhere and"
        " can't sign in until it is unlocked.",
        otherwise=ASK,
    ),
    "authn_login_unlock": Notice(
        subject="Your account at {service} was unlocked",
        what="Your account at {service} was unlocked. You can sign in again.",
        otherwise=ASK,
    ),
    "authz_change": Notice(
        subject="Your roles at {service} were changed",
        what="An administrator of {service} gave you a role, or took one from you. Your"
        " account's activity says which.",
        otherwise=ASK,
    ),
    "user_email_change_requested": Notice(
        subject="A new address was asked for at {service}",
        what="Somebody who is signed in to your account at {service} asked to change"
        " its email address to {new_address}. It changes once that is confirmed.",
        otherwise="stop the change here. It signs out all devices; then set a new"
        " password.",
        apart=True,
    ),
    "user_email_changed": Notice(
        subject="Your address for {service} was changed",
        what="Your account at {service} has a new e-mail address. From now on you sign"
        " in with that one, and mails go there.",
        otherwise="write to {admin} at once. A new password would not help: its link"
        " goes to the new address.",
    ),
}


def init_app(app: Flask) -> None:
    """Listen to what is recorded."""
    events.recorded.connect(_tell, app)


def send(event: SecurityEvent, recipient: str, *, link: str = "", **more: str) -> None:
    """Mail the notice of an event, with the current transaction.

    Args:
        event: what happened.
        recipient: whom to tell.
        link: where to act, instead of the page that the notice names.
        more: words that this one notice has besides.
    """
    notice = NOTICES[event.name]
    settings = config.current()
    words = {
        "service": settings.name,
        "admin": settings.admin_email,
        "factor": event.factor,
        **more,
    }
    text = render_template(
        "bulwark/mail/notice.txt",
        what=notice.what.format_map(words),
        when=f"{event.at:%A, %-d %B %Y, at %H:%M} UTC",
        by=event.by,
        device=devices.name_of(event.user_agent),
        address=event.address,
        otherwise=(ASK if event.by else notice.otherwise).format_map(words),
        link=link or _page(notice, event),
    )
    mail.send(notice.subject.format_map(words), recipient, text)


def _page(notice: Notice, event: SecurityEvent) -> str:
    return mail.link(notice.endpoint) if notice.endpoint and not event.by else ""


def _tell(_: Flask, event: SecurityEvent, user: BaseUser | None, **__: Any) -> None:
    notice = NOTICES.get(event.name)
    if notice is None or user is None or notice.apart:
        return
    if notice.only_if and not event.details.get(notice.only_if):
        return
    if notice.seldom:
        if _was_told(event):
            return
        event.details = {**event.details, "told": True}
    send(event, user.email)


def _was_told(event: SecurityEvent) -> bool:
    """Tell whether a mail about the same went out less than an hour ago."""
    earlier = db.session.scalars(
        select(SecurityEvent.details).where(
            SecurityEvent.user_id == event.user_id,
            SecurityEvent.at > event.at - SELDOM,
            SecurityEvent.name == event.name,
        )
    )
    return any(details.get("told") for details in earlier)
