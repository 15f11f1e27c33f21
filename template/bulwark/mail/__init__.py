"""Emails: stored encrypted in the database until a worker has delivered them.

An email is stored in the same transaction as the change that it reports, so neither is
lost without the other. While the mail server is down, emails wait, and requests don't.
"""

import uuid
from email.message import EmailMessage
from email.policy import SMTP
from typing import Any
from urllib.parse import urlsplit

import email_validator
from flask import current_app, render_template

from bulwark import settings
from bulwark.database import utcnow
from bulwark.mail import headers, opt_outs, outbox, rendering


def init_app(config: settings.Config) -> None:
    """Accept addresses at the service's own domain, even below `.local`."""
    names = email_validator.SPECIAL_USE_DOMAIN_NAMES
    for own in (config.domain, config.admin_email.rpartition("@")[2].lower()):
        names[:] = [name for name in names if not f".{own}".endswith(f".{name}")]


def send(subject: str, recipient: str, text: str) -> None:
    """Add an email to the current transaction; it is sent after the commit.

    Its HTML part is generated from the text: a line that is a link becomes a button.
    """
    paragraphs = [p.strip() for p in text.split("\n\n") if p.strip()]
    own = {"subject": subject, "unsubscribe_link": ""}
    html = render_template("bulwark/mail.html", paragraphs=paragraphs, **own)
    _add(subject, recipient, text, html)


def send_templated(
    subject: str,
    recipient: str,
    template: str,
    *,
    unsubscribe: str = "",
    **values: Any,
) -> bool:
    """Add an email to the current transaction, both parts made from one template.

    Args:
        subject: one line.
        recipient: one address.
        template: an HTML template that extends `bulwark/email.html`. It has `link`,
            which returns the whole URL of an endpoint.
        unsubscribe: for emails that nobody asked for one by one, such as a digest: the
            name of the list that the recipient may unsubscribe from.
        values: the variables of the template.

    Returns:
        whether it will be sent: not if the recipient unsubscribed from the list.

    Raises:
        EmailContentError: the template has what an email can't have.
        ValueError: the subject, the address or the name of the list is invalid.
    """
    url, extra = "", b""
    if unsubscribe:
        if opt_outs.is_out(opt_outs.key_of(unsubscribe, recipient)):
            return False
        token = opt_outs.token_of(unsubscribe, recipient)
        url = link("unsubscribing.unsubscribe", token=token)
        extra = headers.one_click(url)
    own = {"subject": subject, "unsubscribe_link": url, "link": link}
    page = render_template(template, **(values | own))
    _add(subject, recipient, *rendering.parts(page), extra)
    return True


def _add(
    subject: str, recipient: str, text: str, html: str, extra: bytes = b""
) -> None:
    name, address = settings.current().sender
    addressed = (
        headers.subject(subject),
        headers.mailbox("From", address, name),
        headers.mailbox("To", recipient),
        extra,
    )
    message = EmailMessage()
    message["Date"] = utcnow()
    message["Message-ID"] = f"<{uuid.uuid4()}@{address.rpartition('@')[2]}>"
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no automatic replies
    message.set_content(text)
    message.add_alternative(html, subtype="html")
    outbox.add(b"".join(addressed) + message.as_bytes(policy=SMTP))


def link(endpoint: str, **values: str) -> str:
    """Return the URL of a page for an email, whatever the host of the request."""
    base = urlsplit(settings.current().base_url)
    urls = current_app.url_map.bind(base.netloc, base.path, url_scheme=base.scheme)
    return urls.build(endpoint, values, force_external=True)
