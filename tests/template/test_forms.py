"""docs/forms.md, done to a new service as a reader would."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.guide import Service, changing_its_own_files, copy_of

TICKETS = """
import re
from io import BytesIO

from flask import render_template
from sqlalchemy import select
from werkzeug.datastructures import FileStorage
from werkzeug.test import encode_multipart

from app.forms import OrderForm
from app.models import Ticket
from app.tickets import TicketForm
from bulwark import db

PDF = b"%PDF-1.7\\n1 0 obj\\n<<>>\\nendobj\\ntrailer\\n<<>>\\n%%EOF\\n"
GOOD = {"title": "Printer", "urgency": "high", "text": "It is on fire."}


def send(visitor, **data):
    token = visitor.csrf_token("/tickets/new")
    boundary, body = encode_multipart({"csrf_token": token, **data})
    return visitor.client.post(
        "/tickets/new",
        data=body,
        content_type=f"multipart/form-data; boundary={boundary}",
        headers={"Referer": "https://localhost/tickets/new"},
        follow_redirects=True,
    )


def test_users_write_tickets_with_attachments(app, visitor, person):
    visitor.sign_in(person)
    form = visitor.get("/tickets/new").text
    assert 'enctype="multipart/form-data"' in form
    assert "At most 3 files: JPG, PDF or PNG, at most 5.0 MB each" in form
    assert '<a href="/">Cancel</a>' in form
    sent = send(visitor, **GOOD, attachments=FileStorage(BytesIO(PDF), "plan.pdf"))
    assert "We received your ticket." in sent.text
    with app.app_context():
        ticket = db.session.scalar(select(Ticket))
        assert (ticket.title, ticket.urgency) == ("Printer", "high")
        assert [file.filename for file in ticket.attachments] == ["plan.pdf"]
        assert ticket.attachments[0].ticket is ticket


def test_a_wrong_ticket_shows_why_and_keeps_the_rest(app, visitor, person):
    visitor.sign_in(person)
    virus = FileStorage(BytesIO(b"MZ"), "virus.exe")
    page = send(visitor, **GOOD | {"title": "", "attachments": virus}).text
    assert page.partition("<title>")[2].strip().startswith("Error: New ticket")
    assert re.findall('Check <a href="#(.*?)">', page) == ["title", "attachments"]
    assert "Enter a title." in page
    assert "Send one of these types" in page
    assert "It is on fire." in page
    with app.app_context():
        assert db.session.scalar(select(Ticket)) is None


def test_a_page_places_the_fields_itself(app):
    with app.test_request_context():
        page = render_template("short_ticket_form.html", form=TicketForm())
    assert re.findall('<label for="(.*?)">', page) == ["title", "attachments", "text"]


def test_a_form_contains_another(app):
    with app.test_request_context():
        assert [field.name for field in OrderForm().address] == [
            "address-street", "address-city"
        ]
"""
SHIPPED = ("test_facade.py", "web/test_access_matrix.py", "web/test_hostile.py")


@pytest.fixture
def team(ready: Path, tmp_path: Path) -> Iterator[Service]:
    """Return a service whose team follows the guide, and changes its own files only."""
    service = copy_of(ready, tmp_path / "service", "forms.md")
    with changing_its_own_files(service):
        yield service


def test_a_team_builds_forms_and_every_check_passes(team: Service) -> None:
    team.follow(*range(1, len(team.examples)))
    team.is_fully_migrated()
    for check in ("ruff format --check", "ruff check", "mypy", "lint-imports"):
        team.run("sh", "-c", f".venv/bin/{check}")
    team.proves(TICKETS)
    team.run("bin/test", "-q", "-n0", *(f"tests/bulwark/{name}" for name in SHIPPED))
