"""Email notifications about security changes of an account, and signs of misuse.

A notification is queued in the transaction that records its event. So every recorded
action is reported, whether the user, an administrator or the operator performed it.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from flask import Flask, render_template
from sqlalchemy import select

from bulwark import mail, settings
from bulwark.audit import events
from bulwark.audit.events import SecurityEvent
from bulwark.database import db
from bulwark.identity import devices
from bulwark.identity.models import BaseUser

RESET, TOKENS = "security.forgot_password", "tokens.index"
SELDOM = timedelta(hours=1)

# What to do "if not": if the recipient did not do it.
SIGN_OUT = "set a new password immediately. It signs out everyone else."
TAKEN = (
    "someone else has access to your account. Set a new password immediately to sign"
    " them out. If you can no longer sign in, contact {admin}."
)
ASK = "contact {admin}."


@dataclass(frozen=True, kw_only=True)
class Notice:
    """The notification for one kind of event.

    Args:
        subject: the subject of the email.
        what: what happened.
        otherwise: what to do if it was not the user.
        endpoint: the page to do it.
        only_if: send it only if the event has this detail.
        seldom: send it at most once an hour.
        apart: the code that records the event sends it, with a link of its own.
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
    what="Someone signed in to your account at {service} with a device that was not"
    " used before.",
    otherwise=TAKEN,
    endpoint=RESET,
    only_if="new_device",
)

NOTICES = {
    "authn_login_success": NEW_DEVICE,
    "authn_login_successafterfail": NEW_DEVICE,
    "authn_login_fail_max": Notice(
        subject="Too many failed sign-ins to {service}",
        what="Someone tried to sign in to your account at {service} and failed too"
        " often ({factor}). They did not get in. Further attempts are blocked for now.",
        otherwise="your account is still safe. If you use its password elsewhere, or if"
        " it is easy to guess, set a better one.",
        endpoint=RESET,
        seldom=True,
    ),
    "authn_mfa_fail": Notice(
        subject="Failed second step at sign-in to {service}",
        what="Someone entered your correct password for {service}, then failed at the"
        " second step ({factor}). They did not get in.",
        otherwise="someone knows your password. Set a new one immediately, and change"
        " it wherever else you use it.",
        endpoint=RESET,
        seldom=True,
    ),
    "authn_password_change": Notice(
        subject="Your password for {service} was changed",
        what="The password of your account at {service} was changed. All other devices"
        " are signed out. Access tokens still work.",
        otherwise=SIGN_OUT,
        endpoint=RESET,
    ),
    "authn_reset_completed": Notice(
        subject="Your password for {service} was set",
        what="The password of your account at {service} was set with a link that we"
        " emailed you. All devices are signed out, and access tokens are revoked.",
        otherwise="someone may have access to your email. Change the password of your"
        " email account first, then set a new one here.",
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
        what="A second factor of your account at {service} was removed: {factor}.",
        otherwise=TAKEN,
        endpoint=RESET,
    ),
    "authn_recovery_codes_made": Notice(
        subject="New recovery codes for {service}",
        what="New recovery codes were generated for your account at {service}. Earlier"
        " codes no longer work.",
        otherwise=TAKEN,
        endpoint=RESET,
    ),
    "authn_recovery_code_used": Notice(
        subject="A recovery code was used at {service}",
        what="Someone signed in to your account at {service} with your password and one"
        " of your recovery codes. That code no longer works.",
        otherwise="someone has your password and your codes. Set a new password"
        " immediately, then generate new codes.",
        endpoint=RESET,
    ),
    "authn_token_created": Notice(
        subject="A new access token at {service}",
        what="An access token was created for your account at {service}. A program that"
        " has it can act on your behalf.",
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
        what="An administrator of {service} assigned a role to you, or removed one. See"
        " the activity of your account for details.",
        otherwise=ASK,
    ),
    "user_email_change_requested": Notice(
        subject="Change of your email address requested at {service}",
        what="Someone who is signed in to your account at {service} requested to change"
        " its email address to {new_address}. It changes after confirmation.",
        otherwise="stop the change here. This signs out all devices. Then set a new"
        " password.",
        apart=True,
    ),
    "user_email_changed": Notice(
        subject="Your address for {service} was changed",
        what="Your account at {service} has a new email address. Use it to sign in from"
        " now on. We will also send our emails there.",
        otherwise="contact {admin} immediately. A new password would not help, as its"
        " link is sent to the new address.",
    ),
}


def init_app(app: Flask) -> None:
    """Subscribe to recorded events."""
    events.recorded.connect(_notify, app)


def send(event: SecurityEvent, recipient: str, *, link: str = "", **more: str) -> None:
    """Queue the notification of an event in the current transaction.

    Args:
        event: the event.
        recipient: the email address.
        link: the link to include, instead of the notice's page.
        more: additional placeholders of the notice.
    """
    notice = NOTICES[event.name]
    config = settings.current()
    words = {
        "service": config.name,
        "admin": config.admin_email,
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


def _notify(_: Flask, event: SecurityEvent, user: BaseUser | None, **__: Any) -> None:
    notice = NOTICES.get(event.name)
    if notice is None or user is None or notice.apart:
        return
    if notice.only_if and not event.details.get(notice.only_if):
        return
    if notice.seldom:
        if _was_notified(event):
            return
        event.details = {**event.details, "told": True}
    send(event, user.email)


def _was_notified(event: SecurityEvent) -> bool:
    """Return whether the user was notified of the same within the last hour."""
    earlier = db.session.scalars(
        select(SecurityEvent.details).where(
            SecurityEvent.user_id == event.user_id,
            SecurityEvent.at > event.at - SELDOM,
            SecurityEvent.name == event.name,
        )
    )
    return any(details.get("told") for details in earlier)
