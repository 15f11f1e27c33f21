"""Addresses: each has one spelling."""

import pytest
from flask import Flask, Response
from flask_security.mail_util import EmailValidateException

from bulwark.database import db
from bulwark.mail.addresses import OutboxMailUtil
from tests.bulwark.mail.conftest import waiting


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("ZOE@Example.ORG", "zoe@example.org"),
        ("a@bücher.example", "a@xn--bcher-kva.example"),
    ],
)
def test_an_address_has_one_spelling(app: Flask, typed: str, expected: str):
    with app.app_context():
        assert OutboxMailUtil(app).validate(typed) == expected


def test_an_invalid_address_is_rejected(app: Flask):
    with app.app_context(), pytest.raises(EmailValidateException):
        OutboxMailUtil(app).normalize("zoe@")


def test_an_email_outside_a_request_is_committed_by_its_caller(app: Flask):
    with app.app_context():
        OutboxMailUtil(app).send_mail("t", "s", "zoe@example.org", "", "text", None)
        assert waiting() == 1
        db.session.rollback()
        assert waiting() == 0


def test_a_request_that_failed_sends_no_email(app: Flask):
    with app.test_request_context():
        OutboxMailUtil(app).send_mail("t", "s", "zoe@example.org", "", "text", None)
        app.process_response(Response(status=500))
        db.session.rollback()
        assert waiting() == 0
