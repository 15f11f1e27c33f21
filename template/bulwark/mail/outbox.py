"""The outbox: emails wait here, encrypted, until a worker has delivered them."""

import smtplib
import uuid
from datetime import datetime, timedelta

from blinker import Signal
from huey import crontab
from sqlalchemy import LargeBinary, delete, event, select, update
from sqlalchemy.orm import Mapped, mapped_column

from bulwark import crypto, settings
from bulwark.database import SECRET, Model, UTCDateTime, db, utcnow
from bulwark.jobs import queue
from bulwark.mail import mailbox, smtp
from bulwark.observability.logging import log
from bulwark.settings import urls

RETRY_AFTER = (10, 30, 60, 120, 300)  # seconds; the last repeats
LEASE = timedelta(minutes=5)  # longer than one delivery can take
GIVE_UP_AFTER = timedelta(days=5)  # RFC 5321, 4.5.4.1: "at least 4-5 days"

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


def add(message: bytes) -> None:
    """Add an email to the current transaction; it is delivered after the commit."""
    key, now = uuid.uuid4(), utcnow()
    sealed = crypto.encrypt(
        message, keys=settings.current().encryption_keys, place=place_of(key)
    )
    db.session.add(
        OutgoingMail(id=key, sealed_message=sealed, created_at=now, due_at=now)
    )
    event.listen(db.session(), "after_commit", lambda _: _wake_worker(), once=True)


def deliver_due() -> None:
    """Deliver each email that is due, one at a time, until the server fails.

    A server that rejects one recipient for now, as in greylisting, accepts others.
    """
    while mail := _claim():
        try:
            _deliver(_decrypted(mail))
        except (smtp.MailRefusedError, crypto.DecryptionError) as error:
            _drop(mail, type(error).__name__)
        except (OSError, smtplib.SMTPException) as error:
            if utcnow() - mail.created_at > GIVE_UP_AFTER:
                _drop(mail, f"{type(error).__name__} for {GIVE_UP_AFTER.days} days")
                continue
            _postpone(mail)
            log.warning("mail_delayed", mail=str(mail.id), reason=type(error).__name__)
            if not smtp.concerns_one_recipient(error):
                return
        else:
            _delete(mail)


@queue.task(name="deliver_mail")  # type: ignore[untyped-decorator]
def _deliver_in_worker() -> None:
    deliver_due()


@queue.periodic_task(crontab(), name="deliver_waiting_mail")  # type: ignore[untyped-decorator]
def _deliver_each_minute() -> None:
    deliver_due()


def _wake_worker(delay: int = 0) -> None:
    """Queue a delivery. If the queue is down, the job of each minute delivers."""
    try:
        _deliver_in_worker.schedule(delay=delay) if delay else _deliver_in_worker()
    except Exception:  # noqa: BLE001  in any case, the email is safe in the table
        log.warning("queue_unreachable", exc_info=True)


def place_of(key: object) -> str:
    """Return the place that an email is encrypted for."""
    return f"outgoing_mail.sealed_message:{key}"


def _decrypted(mail: OutgoingMail) -> bytes:
    return crypto.decrypt(
        mail.sealed_message,
        keys=settings.current().encryption_keys,
        place=place_of(mail.id),
    )


def _deliver(message: bytes) -> None:
    url = settings.current().mail_url
    if url.startswith("mailbox:"):
        mailbox.save(message)
    else:
        smtp.deliver(urls.mail_server(url), message)


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
    _delete(mail)


def _delete(mail: OutgoingMail) -> None:
    db.session.execute(delete(OutgoingMail).where(OutgoingMail.id == mail.id))
    db.session.commit()
