"""Exports of tickets as CSV."""

import csv
import io
import re

import pytest
from flask import Flask

from app.exports import defuse, delete_exports
from tests.app.helpers import add_ticket
from tests.conftest import RunJobs, Visitor


def test_a_user_exports_what_they_may_read(
    app: Flask, customer: Visitor, stranger: Visitor, run_jobs: RunJobs
):
    add_ticket(app, "zoe@acme.example", '=HYPERLINK("https://evil.example")')
    add_ticket(app, "eve@globex.example", "A secret")
    path = customer.submit("/exports/", {}).location
    assert "Waiting" in customer.get(path).text
    assert "tickets.csv" not in customer.get(path).text
    run_jobs()
    found = re.search(r'href="(/exports/[^"]+\.csv)"', customer.get(path).text)
    assert found
    response = customer.get(found[1])
    assert response.mimetype == "text/csv"
    assert "attachment" in response.headers["Content-Disposition"]
    heading, ticket = csv.reader(io.StringIO(response.text))
    assert (heading[2], ticket[1]) == ("Subject", "Acme")
    assert ticket[2] == '\'=HYPERLINK("https://evil.example")'
    assert stranger.get(found[1]).status_code == 404
    assert stranger.get(path).status_code == 404
    with app.app_context():
        delete_exports.function()
    assert customer.get(found[1]).status_code == 404


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\uff1d1"])
def test_a_formula_is_text(text: str):
    assert defuse(text) == f"'{text}"
    assert defuse("1=1") == "1=1"
