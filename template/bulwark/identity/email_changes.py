"""Changes of an email address: request, confirmation at the new address, and stop.

The emailed link only opens a page. To confirm, the user must be signed in and submit
the form there. Software that opens the links in emails can't confirm a change, and
neither can someone who only reads the mailbox. A new password, a lock and another
change cancel it, as they end sessions.
"""

import secrets
import uuid
from datetime import datetime, timedelta

from flask import render_template, session
from huey import crontab
from sqlalchemy import ForeignKey, String, delete, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Mapped, mapped_column

from bulwark import mail, settings
from bulwark.audit import events
from bulwark.database import PERSONAL, SECRET, Model, UTCDateTime, db, utcnow
from bulwark.identity import notifications, sessions, users
from bulwark.identity.hashed_tokens import TOKEN_BYTES, hash_of
from bulwark.identity.models import EMAIL_LENGTH, BaseUser
from bulwark.jobs import queue
from bulwark.web import attempts

LINK_WORKS = timedelta(hours=1)
EMAILS = 5  # to one address from all users, within `LINK_WORKS`


class AddressChange(Model):
    """A change that awaits confirmation, one per account."""

    __tablename__ = "address_changes"

    user_id: Mapped[int] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), primary_key=True
    )
    email: Mapped[str] = mapped_column(String(EMAIL_LENGTH), info=PERSONAL)
    token_hash: Mapped[str] = mapped_column(String(64), unique=True, info=SECRET)
    stop_token_hash: Mapped[str] = mapped_column(String(64), unique=True, info=SECRET)
    # A hash of `fs_uniquifier`: when that changes, the change is void.
    state_hash: Mapped[str] = mapped_column(String(64), info=SECRET)
    expires_at: Mapped[datetime] = mapped_column(UTCDateTime, index=True)


def request_change(user: BaseUser, email: str) -> None:
    """Email the link, and notify the old address. A taken address takes as long."""
    if attempts.count("address change to", email, LINK_WORKS).count > EMAILS:
        return  # The earlier link still works.
    token, stop_token = (secrets.token_urlsafe(TOKEN_BYTES) for _ in range(2))
    db.session.execute(delete(AddressChange).where(AddressChange.user_id == user.id))
    db.session.add(
        AddressChange(
            user_id=user.id,
            email=email,
            token_hash=hash_of(token),
            stop_token_hash=hash_of(stop_token),
            state_hash=hash_of(user.fs_uniquifier),
            expires_at=utcnow() + LINK_WORKS,
        )
    )
    notifications.send(
        events.record("user_email_change_requested", user),
        user.email,
        link=mail.link("addresses.stop", token=stop_token),
        new_address=email,
    )
    _send_link(user, email, mail.link("security.change_email_confirm", token=token))
    db.session.commit()


def find_pending(user: BaseUser, token: str) -> AddressChange | None:
    """Return the change that a link confirms, if it is valid for this account."""
    return db.session.scalar(
        select(AddressChange).where(
            AddressChange.token_hash == hash_of(token),
            AddressChange.user_id == user.id,
            AddressChange.state_hash == hash_of(user.fs_uniquifier),
            AddressChange.expires_at > utcnow(),
        )
    )


def confirm(user: BaseUser, change: AddressChange) -> bool:
    """Change the address if it is free and the account unchanged; notify both.

    A new `fs_uniquifier` invalidates earlier links to set a password, and all other
    sessions. The current session continues.
    """
    old, uniquifier = user.email, uuid.uuid4().hex
    if not _apply(user, change, uniquifier):
        db.session.rollback()
        return False
    db.session.refresh(user)
    session[sessions.SIGNED_IN] = uniquifier
    sessions.renew()
    sessions.end_others(user)
    notifications.send(events.record("user_email_changed", user), old)
    db.session.commit()
    return True


def find_to_stop(token: str) -> AddressChange | None:
    """Return the change that a link to the old address stops, if it is valid."""
    return db.session.scalar(
        select(AddressChange).where(
            AddressChange.stop_token_hash == hash_of(token),
            AddressChange.expires_at > utcnow(),
        )
    )


def stop(change: AddressChange) -> None:
    """Cancel a change, and end all sessions: someone else may have requested it."""
    user = db.session.get_one(users.model(), change.user_id)
    db.session.delete(change)
    ended = sessions.end_all(user)
    events.record("user_email_change_stopped", user, ended=ended)
    db.session.commit()


@queue.periodic_task(crontab(minute="29"), name="forget_address_changes")  # type: ignore[untyped-decorator]
def forget_old() -> None:
    """Delete expired changes."""
    db.session.execute(
        delete(AddressChange).where(AddressChange.expires_at <= utcnow())
    )
    db.session.commit()


def _send_link(user: BaseUser, email: str, link: str) -> None:
    name, taken = settings.current().name, users.find(email)
    text = render_template(
        f"security/email/change_email_{'taken' if taken else 'instructions'}.txt",
        link=link,
        within="1 hour",
        user=user,
    )
    subject = f"Your address at {name}" if taken else f"Confirm your address at {name}"
    mail.send(subject, email, text)


def _apply(user: BaseUser, change: AddressChange, uniquifier: str) -> bool:
    """Change the address in the current transaction; return whether it was possible."""
    model = users.model()
    taken = delete(AddressChange).where(AddressChange.token_hash == change.token_hash)
    changed = (
        update(model)
        .where(
            model.id == user.id,
            model.fs_uniquifier == user.fs_uniquifier,
            model.active,
        )
        .values(email=change.email, confirmed_at=utcnow(), fs_uniquifier=uniquifier)
        .execution_options(synchronize_session=False)
    )
    try:
        # Of several concurrent requests, only one finds the row.
        if db.session.scalar(taken.returning(AddressChange.user_id)) is None:
            return False
        return db.session.scalar(changed.returning(model.id)) is not None
    except IntegrityError:  # The address has an account by now.
        return False
