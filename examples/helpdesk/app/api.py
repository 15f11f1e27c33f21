"""The API of tickets."""

from datetime import datetime
from typing import Annotated, Literal

from flask import abort
from flask_login import current_user
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select

from app import models, tickets
from bulwark import Api, Page, check_match, db, paginate, permission

api = Api(
    "api",
    __name__,
    url_prefix="/api/v1",
    title="Help desk",
    limit="600 per minute",
    documentation=permission("tickets:read"),
)

Id = Annotated[int, Field(ge=1, le=2**31 - 1)]
Status = Literal["open", "closed"]


class TicketInput(BaseModel):
    """The content of a new ticket. The text is Markdown."""

    model_config = ConfigDict(extra="forbid")

    subject: str = Field(min_length=1, max_length=120)
    text: str = Field(min_length=1, max_length=20_000)


class TicketChange(BaseModel):
    """The state of a ticket."""

    model_config = ConfigDict(extra="forbid")

    status: Status


class CommentInput(BaseModel):
    """The content of a new comment, in Markdown."""

    model_config = ConfigDict(extra="forbid")

    text: str = Field(min_length=1, max_length=20_000)


class Comment(BaseModel):
    """A comment on a ticket."""

    model_config = ConfigDict(from_attributes=True)

    id: Id
    text: str
    created_at: datetime


class Ticket(BaseModel):
    """A ticket."""

    model_config = ConfigDict(from_attributes=True)

    id: Id
    subject: str
    text: str
    status: Status
    created_at: datetime


class Search(Page):
    """Which tickets to list."""

    status: Status | None = Field(None, description="Whether they are open.")


@api.get("/tickets")
@permission("tickets:read")
def list_tickets(query: Search) -> list[Ticket]:
    """List the tickets that you may read, the newest first."""
    found = models.tickets_of(current_user)
    if query.status is not None:
        found = found.where(models.Ticket.status == query.status)
    page = paginate(found, query, models.Ticket.id, descending=True)
    return [Ticket.model_validate(ticket) for ticket in page]


@api.post("/tickets", status=201, errors=[409])
@permission("tickets:write")
def add_ticket(body: TicketInput) -> Ticket:
    """Add a ticket of your organization."""
    if current_user.organization_id is None:
        abort(409, "You are not a member of an organization.")
    ticket = models.Ticket(
        **body.model_dump(),
        organization_id=current_user.organization_id,
        author_id=current_user.id,
    )
    db.session.add(ticket)
    db.session.commit()
    return Ticket.model_validate(ticket)


@api.get("/tickets/<int:ticket_id>")
@permission("tickets:read")
def show_ticket(ticket_id: Id) -> Ticket:
    """Return a ticket."""
    return Ticket.model_validate(tickets.readable_ticket(ticket_id))


@api.patch("/tickets/<int:ticket_id>", errors=[412])
@permission("tickets:write")
def change_ticket(ticket_id: Id, body: TicketChange) -> Ticket:
    """Close or open a ticket."""
    ticket = tickets.readable_ticket(ticket_id)
    check_match(Ticket.model_validate(ticket))
    ticket.status = body.status
    db.session.commit()
    return Ticket.model_validate(ticket)


@api.get("/tickets/<int:ticket_id>/comments")
@permission("tickets:read")
def list_comments(ticket_id: Id, query: Page) -> list[Comment]:
    """List the comments of a ticket, the oldest first."""
    ticket = tickets.readable_ticket(ticket_id)
    found = select(models.Comment).where(models.Comment.ticket_id == ticket.id)
    page = paginate(found, query, models.Comment.id)
    return [Comment.model_validate(comment) for comment in page]


@api.post("/tickets/<int:ticket_id>/comments", status=201)
@permission("tickets:write")
def add_comment(ticket_id: Id, body: CommentInput) -> Comment:
    """Add a comment, and email the others who wrote in the ticket."""
    comment = tickets.add_comment(tickets.readable_ticket(ticket_id), body.text)
    db.session.commit()
    return Comment.model_validate(comment)
