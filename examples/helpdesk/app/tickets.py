"""Tickets, their comments and their attachments."""

from flask import Blueprint, abort, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_login import current_user
from wtforms import StringField, SubmitField, TextAreaField
from wtforms.validators import InputRequired, Length

from app.models import Attachment, Comment, Ticket, tickets_of
from app.notifications import notify
from bulwark import (
    Form,
    UploadField,
    body_limit,
    db,
    permission,
    send_upload,
)

blueprint = Blueprint("tickets", __name__, url_prefix="/tickets")

MARKDOWN = "You can use Markdown, such as **bold** and lists."
STATUSES = ("open", "closed")


class TicketForm(Form):
    """The form of a new ticket."""

    subject = StringField(
        "Subject", [InputRequired("Enter a subject."), Length(max=120)]
    )
    text = TextAreaField(
        "Question",
        [InputRequired("Write your question."), Length(max=20_000)],
        description=MARKDOWN,
        render_kw={"rows": 8},
    )
    attachments = UploadField("Attachments", Attachment)
    submit = SubmitField("Send ticket")


class CommentForm(Form):
    """The form of a comment."""

    text = TextAreaField(
        "Comment",
        [InputRequired("Write a comment."), Length(max=20_000)],
        description=MARKDOWN,
        render_kw={"rows": 5},
    )
    submit = SubmitField("Add comment")


@blueprint.get("/")
@permission("tickets:read")
def index() -> ResponseReturnValue:
    """List the tickets that the user may read."""
    found = tickets_of(current_user)
    if subject := request.args.get("subject"):
        found = found.where(Ticket.subject.icontains(subject, autoescape=True))
    if status := request.args.get("status"):
        found = found.where(Ticket.status == status)
    pages = db.paginate(found.order_by(Ticket.id.desc()), per_page=20)
    return render_template("tickets.html", pages=pages, statuses=STATUSES)


@blueprint.route("/new", methods=["GET", "POST"])
@permission("tickets:write")
@body_limit("52 MB")
def new() -> ResponseReturnValue:
    """Show the form, and add a ticket once it is valid."""
    if current_user.organization_id is None:
        abort(403, "You are not a member of an organization. An agent can add you.")
    form = TicketForm()
    if form.validate_on_submit():
        ticket = Ticket(
            subject=form.subject.data,
            text=form.text.data,
            organization_id=current_user.organization_id,
            author_id=current_user.id,
            attachments=form.attachments.store(),
        )
        db.session.add(ticket)
        db.session.commit()
        flash("We received your ticket.", "success")
        return redirect(url_for(".show", ticket_id=ticket.id))
    return render_template("ticket_form.html", form=form)


@blueprint.route("/<int:ticket_id>", methods=["GET", "POST"])
@permission("tickets:write")
def show(ticket_id: int) -> ResponseReturnValue:
    """Show a ticket with its comments, and add a comment once it is valid."""
    ticket = readable_ticket(ticket_id)
    form = CommentForm()
    if form.validate_on_submit():
        add_comment(ticket, form.text.data or "")
        db.session.commit()
        flash("Your comment was added.", "success")
        return redirect(url_for(".show", ticket_id=ticket.id))
    return render_template("ticket.html", ticket=ticket, form=form)


@blueprint.post("/<int:ticket_id>/status")
@permission("tickets:write")
def change_status(ticket_id: int) -> ResponseReturnValue:
    """Close an open ticket, or open a closed one."""
    ticket = readable_ticket(ticket_id)
    ticket.status = "closed" if ticket.status == "open" else "open"
    db.session.commit()
    flash(f"The ticket is {ticket.status}.", "success")
    return redirect(url_for(".show", ticket_id=ticket.id))


@blueprint.get("/attachments/<int:attachment_id>")
@permission("tickets:read")
def attachment(attachment_id: int) -> ResponseReturnValue:
    """Send an attachment to those who may read its ticket."""
    return send_upload(db.get_or_404(Attachment, attachment_id))


def readable_ticket(ticket_id: int) -> Ticket:
    """Return a ticket, or respond with 404 if the user may not read it."""
    own = tickets_of(current_user)
    ticket: Ticket = db.one_or_404(own.where(Ticket.id == ticket_id))
    return ticket


def add_comment(ticket: Ticket, text: str) -> Comment:
    """Add a comment of the signed-in user, and email the others."""
    comment = Comment(ticket=ticket, text=text, author_id=current_user.id)
    db.session.add(comment)
    db.session.flush()
    notify(comment.id)
    return comment
