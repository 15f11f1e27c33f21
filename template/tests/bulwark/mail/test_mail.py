"""Emails: their content, and the transaction that they are part of."""

import pytest
from flask import Flask

from bulwark import mail
from bulwark.database import db
from tests.bulwark.mail.conftest import send, waiting
from tests.conftest import Visitor


def test_an_email_has_a_text_and_a_page_made_from_it(visitor: Visitor, app: Flask):
    with app.app_context():
        send()
    letter = visitor.letters()[0]
    text, html = letter.get_body(("plain",)), letter.get_body(("html",))
    assert text
    assert html
    assert "https://localhost/confirm/abc" in text.get_content()
    assert 'href="https://localhost/confirm/abc"' in html.get_content()
    assert letter["To"] == "zoe@example.org"
    assert letter["Auto-Submitted"] == "auto-generated"


def test_an_address_can_not_add_a_header(app: Flask):
    with (
        app.app_context(),
        pytest.raises(ValueError, match=r"(?i)line|invalid|linefeed"),
    ):
        send("zoe@example.org\r\nBcc: all@example.org")


def test_an_email_is_sent_if_its_transaction_commits(app: Flask):
    with app.app_context():
        mail.send("Hello", "zoe@example.org", "You have signed up.")
        db.session.rollback()
        assert waiting() == 0
