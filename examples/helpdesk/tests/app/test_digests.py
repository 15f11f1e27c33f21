"""The digest of each night."""

from flask import Flask
from sqlalchemy import select

from app import notifications
from app.models import User
from bulwark import db
from tests.app.helpers import add_ticket
from tests.conftest import RunJobs, Visitor


def test_users_get_their_open_tickets(
    app: Flask,
    customer: Visitor,
    stranger: Visitor,
    agent: Visitor,
    run_jobs: RunJobs,
):
    number = add_ticket(app, "zoe@acme.example")
    with app.app_context():
        notifications.send_digests.function()
    run_jobs()
    letters = customer.letters()
    assert {letter["To"] for letter in letters} == {
        "zoe@acme.example",
        "ada@help.example",
    }
    for letter in letters:
        assert letter["List-Unsubscribe"]
        text = letter.get_body(("plain",))
        assert text is not None
        assert f"https://localhost/tickets/{number}" in text.get_content()


def test_a_user_who_may_not_read_tickets_gets_none(
    app: Flask, customer: Visitor, run_jobs: RunJobs
):
    add_ticket(app, "zoe@acme.example")
    with app.app_context():
        user = db.session.scalars(select(User)).one()
        user.roles = []
        db.session.commit()
        notifications.send_digest.function(user.id)
    run_jobs()
    assert customer.letters() == []
