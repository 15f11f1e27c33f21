"""What the tests of the help desk share."""

from flask import Flask
from sqlalchemy import select

from app.models import Organization, Ticket, User
from bulwark import db
from tests.conftest import add_person


def add_customer(app: Flask, email: str, organization: str) -> str:
    """Add a member of an organization, which is made if it is new."""
    add_person(app, email, "customer")
    with app.app_context():
        found = select(Organization).where(Organization.name == organization)
        user = db.session.scalars(select(User).where(User.email == email)).one()
        user.organization = db.session.scalar(found) or Organization(name=organization)
        db.session.commit()
    return email


def add_ticket(app: Flask, email: str, subject: str = "No paper") -> int:
    """Add a ticket of a customer; return its number."""
    with app.app_context():
        author = db.session.scalars(select(User).where(User.email == email)).one()
        ticket = Ticket(
            subject=subject,
            text="The **printer** is empty.",
            author=author,
            organization=author.organization,
        )
        db.session.add(ticket)
        db.session.commit()
        return ticket.id
