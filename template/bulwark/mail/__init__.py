"""Emails: stored encrypted in the database until a worker has delivered them.

An email is stored in the same transaction as the change that it reports, so neither is
lost without the other. A mail server that is down delays emails, but no client.
"""

import base64
import smtplib
import ssl
import unicodedata
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import email_validator
from blinker import Signal
from email_validator import EmailNotValidError, validate_email
from flask import (
    Response,
    after_this_request,
    current_app,
    has_request_context,
    render_template,
)
from flask_security import MailUtil
from flask_security.mail_util import EmailValidateException
from huey import crontab
from sqlalchemy import LargeBinary, delete, event, select, update
from sqlalchemy.orm import Mapped, mapped_column

from bulwark import crypto, settings
from bulwark.database import SECRET, Model, UTCDateTime, db, utcnow
from bulwark.jobs import queue
from bulwark.mail import headers
from bulwark.network import is_local
from bulwark.observability.logging import log
from bulwark.settings import urls

RETRY_AFTER = (10, 30, 60, 120, 300)  # seconds; the last repeats
LEASE = timedelta(minutes=5)  # longer than one delivery can take
GIVE_UP_AFTER = timedelta(days=5)  # RFC 5321, 4.5.4.1: "at least 4-5 days"
SIGNED_IN = 235  # RFC 4954, 6
CLOSING = 421  # RFC 5321, 3.8: the server ends the connection
PERMANENT = 500  # RFC 5321, 4.2.1: a retry will not help
ADDRESS_LENGTH = 254  # RFC 5321, 4.5.3.1.3, without the angle brackets
TIMEOUT = 10  # seconds for each step of the session with the server

# Sent with the email and the `reason` when it will not be delivered.
dropped = Signal()


class OutgoingMail(Model):
    """An email that is not delivered yet, encrypted because it may contain a link."""

    __tablename__ = "outgoing_mail"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    sealed_message: Mapped[bytes] = mapped_column(LargeBinary, info=SECRET)
    created_at: Mapped[datetime] = mapped_column(UTCDateTime)
    due_at: Mapped[datetime] = mapped_column(UTCDateTime, index=True)
    attempts: Mapped[int] = mapped_column(default=0)


class MailRefusedError(Exception):
    """The server will never accept this email."""


def send(subject: str, recipient: str, text: str) -> None:
    """Add an email to the current transaction; it is sent after the commit.

    Its HTML part is generated from the text: a line that is a link becomes a button.
    """
    name, address = settings.current().sender
    addressed = (
        headers.subject(subject),
        headers.mailbox("From", address, name),
        headers.mailbox("To", recipient),
    )
    message = EmailMessage()
    message["Date"] = utcnow()
    message["Message-ID"] = f"<{uuid.uuid4()}@{address.rpartition('@')[2]}>"
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no automatic replies
    message.set_content(text)
    paragraphs = [p.strip() for p in text.split("\n\n") if p.strip()]
    html = render_template("bulwark/mail.html", subject=subject, paragraphs=paragraphs)
    message.add_alternative(html, subtype="html")
    key = uuid.uuid4()
    sealed = crypto.encrypt(
        b"".join(addressed) + message.as_bytes(policy=SMTP),
        keys=settings.current().encryption_keys,
        place=_place(key),
    )
    now = utcnow()
    db.session.add(
        OutgoingMail(id=key, sealed_message=sealed, created_at=now, due_at=now)
    )
    event.listen(db.session(), "after_commit", lambda _: _wake_worker(), once=True)


def link(endpoint: str, **values: str) -> str:
    """Return the URL of a page for an email, whatever the host of the request."""
    base = urlsplit(settings.current().base_url)
    urls = current_app.url_map.bind(base.netloc, base.path, url_scheme=base.scheme)
    return urls.build(endpoint, values, force_external=True)


class OutboxMailUtil(MailUtil):
    """Passes Flask-Security's emails to `send`, and normalizes addresses."""

    def send_mail(
        self,
        template: str,
        subject: str,
        recipient: str | tuple[str, str],
        sender: str | tuple[str, str],
        body: str | None,
        html: str | None,
        **context: Any,
    ) -> None:
        """Send one of the emails in `templates/security/email/`."""
        send(subject, str(recipient), body or "")
        if has_request_context():
            after_this_request(_commit)

    def normalize(self, email: str) -> str:
        """Return the only spelling of an address, so that it can't be used twice.

        It is lowercase, with the domain in its ASCII form (`xn--`).
        """
        # One character may expand to eighteen, and each takes time to check.
        if len(unicodedata.normalize("NFKC", email)) > ADDRESS_LENGTH:
            raise EmailValidateException("This email address is too long.")
        try:
            checked = validate_email(
                email,
                check_deliverability=False,
                allow_smtputf8=False,
                test_environment=settings.current().environment != "production",
            )
        except EmailNotValidError as error:
            raise EmailValidateException(str(error)) from error
        return str(checked.ascii_email).lower()

    def validate(self, email: str) -> str:
        """Query no name server: the client would wait for it."""
        return self.normalize(email)


def deliver_due() -> None:
    """Deliver each email that is due, one at a time, until the server fails.

    A server that rejects one recipient for now, as in greylisting, accepts others.
    """
    while mail := _claim():
        try:
            _hand_over(_unsealed(mail))
        except (MailRefusedError, crypto.DecryptionError) as error:
            _drop(mail, type(error).__name__)
        except (OSError, smtplib.SMTPException) as error:
            if utcnow() - mail.created_at > GIVE_UP_AFTER:
                _drop(mail, f"{type(error).__name__} for {GIVE_UP_AFTER.days} days")
                continue
            _postpone(mail)
            log.warning("mail_delayed", mail=str(mail.id), reason=type(error).__name__)
            if not _concerns_one(error):
                return
        else:
            _forget(mail)


@queue.task(name="deliver_mail")  # type: ignore[untyped-decorator]
def _deliver() -> None:
    deliver_due()


@queue.periodic_task(crontab(), name="deliver_waiting_mail")  # type: ignore[untyped-decorator]
def _deliver_each_minute() -> None:
    deliver_due()


def init_app(config: settings.Config) -> None:
    """Accept addresses at the service's own domain, even below `.local`."""
    names = email_validator.SPECIAL_USE_DOMAIN_NAMES
    for own in (config.domain, config.admin_email.rpartition("@")[2].lower()):
        names[:] = [name for name in names if not f".{own}".endswith(f".{name}")]


def _place(key: uuid.UUID) -> str:
    return f"outgoing_mail.sealed_message:{key}"


def _unsealed(mail: OutgoingMail) -> bytes:
    return crypto.decrypt(
        mail.sealed_message,
        keys=settings.current().encryption_keys,
        place=_place(mail.id),
    )


def _commit(response: Response) -> Response:
    """Commit the email of a view that changes nothing else, such as /reset."""
    if response.status_code < 500:  # noqa: PLR2004
        db.session.commit()
    return response


def _wake_worker(delay: int = 0) -> None:
    """Queue a delivery. If the queue is down, the job of each minute delivers."""
    try:
        _deliver.schedule(delay=delay) if delay else _deliver()
    except Exception:  # noqa: BLE001  in any case, the email is safe in the table
        log.warning("queue_unreachable", exc_info=True)


def _claim() -> OutgoingMail | None:
    """Claim the email that has waited longest, so that no other worker sends it."""
    now = utcnow()
    mail = db.session.scalar(
        select(OutgoingMail)
        .where(OutgoingMail.due_at <= now)
        .order_by(OutgoingMail.due_at)
        .limit(1)
    )
    if mail is None:
        return None
    claimed = db.session.scalar(
        update(OutgoingMail)
        .where(OutgoingMail.id == mail.id, OutgoingMail.due_at == mail.due_at)
        .values(due_at=now + LEASE, attempts=OutgoingMail.attempts + 1)
        .returning(OutgoingMail.id)
        .execution_options(synchronize_session=False)
    )
    db.session.commit()
    db.session.refresh(mail)
    return mail if claimed else _claim()


def _postpone(mail: OutgoingMail) -> None:
    wait = RETRY_AFTER[min(mail.attempts, len(RETRY_AFTER)) - 1]
    mail.due_at = utcnow() + timedelta(seconds=wait)
    db.session.commit()
    _wake_worker(wait + 1)


def _drop(mail: OutgoingMail, reason: str) -> None:
    """Delete this email only."""
    dropped.send(mail, reason=reason)
    _forget(mail)


def _forget(mail: OutgoingMail) -> None:
    db.session.execute(delete(OutgoingMail).where(OutgoingMail.id == mail.id))
    db.session.commit()


def _hand_over(message: bytes) -> None:
    url = settings.current().mail_url
    if url.startswith("mailbox:"):
        _drop_into(Path(urls.path_of(url)), message)
        return
    try:
        with _connection(urls.mail_server(url)) as server:
            # As it is stored: serializing it again could change its headers.
            server.sendmail(*_envelope(message), message)
    except smtplib.SMTPRecipientsRefused as error:
        codes = [code for code, _ in error.recipients.values()]
        if all(code >= PERMANENT for code in codes):
            raise MailRefusedError from error
        raise
    except smtplib.SMTPResponseException as error:
        if isinstance(error, smtplib.SMTPDataError) and error.smtp_code >= PERMANENT:
            raise MailRefusedError from error
        raise


def _concerns_one(error: Exception) -> bool:
    """Return whether only the recipient was rejected, on an open connection."""
    if not isinstance(error, smtplib.SMTPRecipientsRefused):
        return False
    return all(code != CLOSING for code, _ in error.recipients.values())


def _envelope(message: bytes) -> tuple[str, str]:
    """Return the addresses of the sender and the recipient."""
    read = message_from_bytes(message, policy=SMTP)
    return read["From"].addresses[0].addr_spec, read["To"].addresses[0].addr_spec


@contextmanager
def _connection(url: urls.Server) -> Iterator[smtplib.SMTP]:
    """Connect and sign in; another host requires TLS with a verified certificate."""
    tls = ssl.create_default_context()
    over_tls, port = url.scheme == "smtps", url.port or 0
    # Servers reject "localhost" or the name of a container in the greeting.
    own = settings.current().domain
    with (
        smtplib.SMTP_SSL(url.host, port, own, timeout=TIMEOUT, context=tls)
        if over_tls
        else smtplib.SMTP(url.host, port, own, timeout=TIMEOUT)
    ) as server:
        server.ehlo()
        if not over_tls and (not is_local(url.host) or server.has_extn("starttls")):
            server.starttls(context=tls)
        if url.user and url.password:
            _sign_in(server, url.user, url.password)
        yield server


def _sign_in(server: smtplib.SMTP, user: str, password: str) -> None:
    if (user + password).isascii():
        server.login(user, password)
        return
    # smtplib supports ASCII only; PLAIN is UTF-8 (RFC 4616).
    token = base64.b64encode(f"\0{user}\0{password}".encode()).decode()
    server.ehlo_or_helo_if_needed()
    code, said = server.docmd("AUTH", f"PLAIN {token}")
    if code != SIGNED_IN:
        raise smtplib.SMTPAuthenticationError(code, said)


def _drop_into(folder: Path, message: bytes) -> None:
    """Save an email as a file, which /dev/mailbox shows."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    name = f"{utcnow():%Y%m%d-%H%M%S-%f}"
    (folder / f"{name}.part").write_bytes(message)
    (folder / f"{name}.part").rename(folder / f"{name}.eml")
