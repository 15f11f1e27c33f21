"""Exports of tickets as CSV, for spreadsheets."""

import csv
import io
from collections.abc import Iterable
from uuid import UUID, uuid4

from flask import Blueprint, Response, redirect, render_template, url_for
from flask.typing import ResponseReturnValue
from flask_login import current_user
from sqlalchemy import Select, delete, func, select

from app.models import Export, Ticket, User, tickets_of
from bulwark import db, job, job_run, limit, permission

blueprint = Blueprint("exports", __name__, url_prefix="/exports")

COLUMNS = ("Number", "Organization", "Subject", "Status", "Created", "Text")
# What makes a spreadsheet calculate a cell, full-width characters included.
FORMULA = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")


@blueprint.get("/")
@permission("tickets:read")
def start() -> ResponseReturnValue:
    """Offer an export."""
    return render_template("exports.html")


@blueprint.post("/")
@permission("tickets:read")
@limit("10 per hour")
def request_export() -> ResponseReturnValue:
    """Queue an export, and show its progress."""
    export_id = uuid4()
    run = make_export(str(export_id), current_user.id)
    db.session.commit()
    return redirect(url_for(".show", run_id=run.id, export_id=export_id))


@blueprint.get("/<uuid:run_id>/<uuid:export_id>")
@permission("tickets:read")
def show(run_id: UUID, export_id: UUID) -> ResponseReturnValue:
    """Show the progress, and then a link to the file."""
    run, export = job_run(run_id), db.session.scalar(_own_export(export_id))
    return render_template("export.html", run=run, export=export)


@blueprint.get("/<uuid:export_id>.csv")
@permission("tickets:read")
def download(export_id: UUID) -> ResponseReturnValue:
    """Send an export to the user who requested it."""
    export = db.one_or_404(_own_export(export_id))
    response = Response(export.content, mimetype="text/csv")
    response.headers.set("Content-Disposition", "attachment", filename="tickets.csv")
    return response


def _own_export(export_id: UUID) -> Select[Export]:
    own = select(Export).where(Export.owner_id == current_user.id)
    return own.where(Export.id == str(export_id))


@job("make_export", retries=5, time_limit=300)
def make_export(export_id: str, owner_id: int) -> None:
    """Write the tickets that a user may read."""
    owner = db.session.get(User, owner_id)
    if owner is None or db.session.get(Export, export_id) is not None:
        return  # an earlier try was killed after its commit
    tickets = tickets_of(owner).order_by(Ticket.id)
    total = db.session.scalar(select(func.count()).select_from(tickets.subquery())) or 0
    content = io.StringIO()
    writer = csv.writer(content)
    writer.writerow(COLUMNS)
    for number, ticket in enumerate(db.session.scalars(tickets), 1):
        writer.writerow(map(defuse, cells(ticket)))
        job.progress(number, total)
    db.session.add(Export(id=export_id, owner_id=owner_id, content=content.getvalue()))
    db.session.commit()


def cells(ticket: Ticket) -> Iterable[str]:
    """Return the row of a ticket, in the order of COLUMNS."""
    created = ticket.created_at.isoformat(timespec="seconds")
    organization = ticket.organization.name
    number = str(ticket.id)
    return number, organization, ticket.subject, ticket.status, created, ticket.text


def defuse(text: str) -> str:
    """Return text that a spreadsheet shows, and does not calculate as a formula."""
    return f"'{text}" if text.startswith(FORMULA) else text


@job("delete_exports", schedule="30 4 * * *", retries=2)
def delete_exports() -> None:
    """Delete all exports, each night."""
    db.session.execute(delete(Export))
    db.session.commit()
