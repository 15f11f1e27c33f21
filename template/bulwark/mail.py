"""Mail: kept encrypted in the database until a worker has handed it over.

A mail is written in the transaction of what it reports, so neither is lost without
the other, and a mail server that is away delays mail but no visitor.
"""

import smtplib
import ssl
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from email import message_from_bytes
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from email_validator import EmailNotValidError, validate_email
from flask import (
    Flask,
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

from bulwark import config, crypto
from bulwark.database import SECRET, Model, UTCDateTime, db, utcnow
from bulwark.jobs import queue
from bulwark.logging import log
from bulwark.safety import is_local

RETRY_AFTER = (10, 30, 60, 120, 300)  # seconds; the last repeats
LEASE = timedelta(minutes=5)  # longer than one delivery can take
GIVE_UP_AFTER = timedelta(days=5)  # RFC 5321, 4.5.4.1: "at least 4-5 days"
PERMANENT = 500  # RFC 5321, 4.2.1: the server will not change its mind
TIMEOUT = 10  # seconds for each step of the talk with the server


class OutgoingMail(Model):
    """A mail that is not handed over yet, sealed: it may hold a link."""

    __tablename__ = "outgoing_mail"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    sealed_message: Mapped[bytes] = mapped_column(LargeBinary, info=SECRET)
    created_at: Mapped[datetime] = mapped_column(UTCDateTime)
    due_at: Mapped[datetime] = mapped_column(UTCDateTime, index=True)
    attempts: Mapped[int] = mapped_column(default=0)


class MailRefusedError(Exception):
    """The server will never take this mail."""


def send(subject: str, recipient: str, text: str) -> None:
    """Add a mail to the current transaction; it leaves after the commit.

    Its HTML part is made from the text: a line that is a link becomes a button.
    """
    name, address = config.current().sender
    message = EmailMessage()
    message["Subject"] = subject
    message["From"] = Address(name, addr_spec=address)
    message["To"] = Address(addr_spec=recipient)
    message["Date"] = utcnow()
    message["Message-ID"] = f"<{uuid.uuid4()}@{address.rpartition('@')[2]}>"
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no answering machines
    message.set_content(text)
    paragraphs = [p.strip() for p in text.split("\n\n") if p.strip()]
    html = render_template("bulwark/mail.html", subject=subject, paragraphs=paragraphs)
    message.add_alternative(html, subtype="html")
    key = uuid.uuid4()
    sealed = crypto.encrypt(
        message.as_bytes(policy=SMTP),
        keys=config.current().encryption_keys,
        place=_place(key),
    )
    now = utcnow()
    db.session.add(
        OutgoingMail(id=key, sealed_message=sealed, created_at=now, due_at=now)
    )
    event.listen(db.session(), "after_commit", lambda _: _wake_worker(), once=True)


def link(endpoint: str, **values: str) -> str:
    """Return the address of a page for a mail, whatever host a request named."""
    base = urlsplit(config.current().base_url)
    urls = current_app.url_map.bind(base.netloc, base.path, url_scheme=base.scheme)
    return urls.build(endpoint, values, force_external=True)


class OutboxMailUtil(MailUtil):
    """Hands Flask-Security's mails to `send`, and knows one spelling of an address."""

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
        """Send one of the mails in `templates/security/email/`."""
        send(subject, str(recipient), body or "")
        if has_request_context():
            after_this_request(_commit)

    def normalize(self, email: str) -> str:
        """Return the one spelling of an address, so that nobody holds it twice.

        Lower case, and a domain as mail servers write it (`xn--`).
        """
        try:
            checked = validate_email(
                email,
                check_deliverability=False,
                allow_smtputf8=False,
                test_environment=config.current().environment != "production",
            )
        except EmailNotValidError as error:
            raise EmailValidateException(str(error)) from error
        return str(checked.ascii_email).lower()

    def validate(self, email: str) -> str:
        """Ask no name server: a visitor would wait for it."""
        return self.normalize(email)


def deliver_due() -> None:
    """Hand over each mail that is due, one at a time, until the server fails."""
    while mail := _claim():
        try:
            _hand_over(_unsealed(mail))
        except (MailRefusedError, crypto.DecryptionError) as error:
            log.error("mail_refused", mail=str(mail.id), reason=type(error).__name__)
            _forget(mail)
        except (OSError, smtplib.SMTPException) as error:
            if utcnow() - mail.created_at > GIVE_UP_AFTER:
                log.error("mail_given_up", mail=str(mail.id))
                _forget(mail)
                continue
            _postpone(mail)
            log.warning("mail_delayed", mail=str(mail.id), reason=type(error).__name__)
            return
        else:
            _forget(mail)


@queue.task(name="deliver_mail")  # type: ignore[untyped-decorator]
def _deliver() -> None:
    deliver_due()


@queue.periodic_task(crontab(), name="deliver_waiting_mail")  # type: ignore[untyped-decorator]
def _deliver_each_minute() -> None:
    deliver_due()


def init_app(app: Flask, settings: config.Config) -> None:
    """Refuse a mail address that names no way to send."""
    scheme = urlsplit(settings.mail_url).scheme
    if scheme not in ("mailbox", "smtp", "smtps"):
        raise ValueError(f"APP_MAIL_URL begins with {scheme!r}, not smtp or smtps")


def _place(key: uuid.UUID) -> str:
    return f"outgoing_mail.sealed_message:{key}"


def _unsealed(mail: OutgoingMail) -> bytes:
    return crypto.decrypt(
        mail.sealed_message,
        keys=config.current().encryption_keys,
        place=_place(mail.id),
    )


def _commit(response: Response) -> Response:
    """Keep a mail of a view that changes nothing else, such as /reset."""
    if response.status_code < 500:  # noqa: PLR2004
        db.session.commit()
    return response


def _wake_worker(delay: int = 0) -> None:
    """Deliver in so many seconds. When the queue is away, the minute's round does."""
    try:
        _deliver.schedule(delay=delay) if delay else _deliver()
    except Exception:  # noqa: BLE001  whatever it is, the mail is safe in the table
        log.warning("queue_unreachable", exc_info=True)


def _claim() -> OutgoingMail | None:
    """Take the mail that waited longest, so that no other worker sends it too."""
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


def _forget(mail: OutgoingMail) -> None:
    db.session.execute(delete(OutgoingMail).where(OutgoingMail.id == mail.id))
    db.session.commit()


def _hand_over(message: bytes) -> None:
    url = urlsplit(config.current().mail_url)
    if url.scheme == "mailbox":
        _drop_into(Path(url.path), message)
        return
    try:
        with _connection(url) as server:
            server.send_message(message_from_bytes(message, policy=SMTP))
    except smtplib.SMTPRecipientsRefused as error:
        codes = [code for code, _ in error.recipients.values()]
        if all(code >= PERMANENT for code in codes):
            raise MailRefusedError from error
        raise
    except smtplib.SMTPResponseException as error:
        if isinstance(error, smtplib.SMTPDataError) and error.smtp_code >= PERMANENT:
            raise MailRefusedError from error
        raise


@contextmanager
def _connection(url: SplitResult) -> Iterator[smtplib.SMTP]:
    """Connect and sign in; to another host over TLS with a verified certificate."""
    host, tls = url.hostname or "", ssl.create_default_context()
    over_tls = url.scheme == "smtps"
    with (
        smtplib.SMTP_SSL(host, url.port or 465, timeout=TIMEOUT, context=tls)
        if over_tls
        else smtplib.SMTP(host, url.port or 587, timeout=TIMEOUT)
    ) as server:
        server.ehlo()
        if not over_tls and (not is_local(host) or server.has_extn("starttls")):
            server.starttls(context=tls)
        if url.username:
            server.login(unquote(url.username), unquote(url.password or ""))
        yield server


def _drop_into(folder: Path, message: bytes) -> None:
    """Keep a mail as a file, where /dev/mailbox shows it."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    name = f"{utcnow():%Y%m%d-%H%M%S-%f}"
    (folder / f"{name}.part").write_bytes(message)
    (folder / f"{name}.part").rename(folder / f"{name}.eml")
