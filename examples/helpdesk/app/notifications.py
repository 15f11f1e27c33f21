"""Emails about comments, and the digest of each night."""

from sqlalchemy import select

from app.models import Comment, Ticket, User, tickets_of
from bulwark import db, job, send_templated_email


@job("notify_of_comment", retries=5)
def notify(comment_id: int) -> None:
    """Email a comment to everyone else who wrote in its ticket and may read it."""
    comment = db.session.get(Comment, comment_id)
    if comment is None:
        return
    ticket = comment.ticket
    wrote = {ticket.author, *(other.author for other in ticket.comments)}
    for user in wrote - {None, comment.author}:
        if user and user.gets_email and ticket.is_readable_by(user):
            send_templated_email(
                f"Comment on ticket {ticket.id}: {ticket.subject}",
                user.email,
                "emails/comment.html",
                comment=comment,
            )
    db.session.commit()


@job("send_digest", retries=5)
def send_digest(user_id: int) -> None:
    """Email one user the oldest open tickets that they may read, if any."""
    user = db.session.get(User, user_id)
    if user is None or not user.gets_email:
        return
    found = tickets_of(user).where(Ticket.status == "open")
    if tickets := db.session.scalars(found.order_by(Ticket.id).limit(50)).all():
        send_templated_email(
            "Your open tickets",
            user.email,
            "emails/digest.html",
            unsubscribe="daily-digest",
            user=user,
            tickets=tickets,
        )
    db.session.commit()


@job("send_digests", schedule="0 5 * * *")
def send_digests() -> None:
    """Queue the digest of each user, every night."""
    for user_id in db.session.scalars(select(User.id).where(User.active)):
        send_digest(user_id)
    db.session.commit()
