"""Organizations, their tickets, and what belongs to a ticket."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Select, String, Text, select
from sqlalchemy.orm import Mapped, mapped_column, relationship

from bulwark import BaseUser, Model, Upload, UTCDateTime, utcnow


class Organization(Model):
    """An organization whose members write tickets."""

    __tablename__ = "organizations"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(100), unique=True)
    members: Mapped[list["User"]] = relationship(
        back_populates="organization", order_by="User.email"
    )


class User(BaseUser):
    """A customer, who is a member of an organization, or an agent."""

    display_name: Mapped[str] = mapped_column(String(80), server_default="")
    organization_id: Mapped[int | None] = mapped_column(
        ForeignKey("organizations.id"), index=True
    )
    organization: Mapped[Organization | None] = relationship(back_populates="members")

    @property
    def name(self) -> str:
        """The name that others see."""
        return self.display_name or "A user"

    @property
    def gets_email(self) -> bool:
        """Whether to email them about tickets."""
        return bool(self.active and self.has_permission("tickets:read"))


class Ticket(Model):
    """A question of an organization, in Markdown."""

    __tablename__ = "tickets"

    id: Mapped[int] = mapped_column(primary_key=True)
    subject: Mapped[str] = mapped_column(String(120))
    text: Mapped[str] = mapped_column(Text)
    status: Mapped[str] = mapped_column(String(10), default="open")
    created_at: Mapped[datetime] = mapped_column(UTCDateTime, default=utcnow)
    organization_id: Mapped[int] = mapped_column(
        ForeignKey("organizations.id"), index=True
    )
    author_id: Mapped[int | None] = mapped_column(
        ForeignKey("users.id", ondelete="SET NULL"), index=True
    )
    organization: Mapped[Organization] = relationship(lazy="joined")
    author: Mapped[User | None] = relationship(lazy="joined")
    comments: Mapped[list["Comment"]] = relationship(
        back_populates="ticket", order_by="Comment.id"
    )
    attachments: Mapped[list["Attachment"]] = relationship(order_by="Attachment.id")

    def is_readable_by(self, user: Any) -> bool:
        """Return whether a user may read it, and everything that belongs to it."""
        return bool(
            user.has_permission("tickets:all")
            or user.organization_id == self.organization_id
        )


def tickets_of(user: Any) -> Select[Ticket]:
    """Select the tickets that a user may read: agents all, others those of theirs."""
    if user.has_permission("tickets:all"):
        return select(Ticket)
    return select(Ticket).where(Ticket.organization_id == user.organization_id)


class Comment(Model):
    """A reply to a ticket, in Markdown."""

    __tablename__ = "comments"

    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UTCDateTime, default=utcnow)
    ticket_id: Mapped[int] = mapped_column(ForeignKey("tickets.id"), index=True)
    author_id: Mapped[int | None] = mapped_column(
        ForeignKey("users.id", ondelete="SET NULL"), index=True
    )
    ticket: Mapped[Ticket] = relationship(back_populates="comments")
    author: Mapped[User | None] = relationship(lazy="joined")


class Attachment(Upload, Model):
    """A file of a ticket."""

    __tablename__ = "attachments"
    accepts = (".jpeg", ".jpg", ".log", ".pdf", ".png", ".txt", ".zip")
    max_size = "10 MB"
    max_files = 5

    id: Mapped[int] = mapped_column(primary_key=True)
    ticket_id: Mapped[int] = mapped_column(ForeignKey("tickets.id"), index=True)
    ticket: Mapped[Ticket] = relationship(viewonly=True)

    def readable_by(self, user: Any) -> bool:
        """Let those download it who may read its ticket."""
        return self.ticket.is_readable_by(user)


class Export(Model):
    """The tickets of a user's organization as CSV."""

    __tablename__ = "exports"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    owner_id: Mapped[int] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), index=True
    )
    content: Mapped[str] = mapped_column(Text)
