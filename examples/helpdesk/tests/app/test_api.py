"""The API of tickets."""

from flask import Flask

from tests.app.helpers import add_customer, add_ticket
from tests.conftest import Visitor
from tests.support import bearer, make_token

TICKET = {"subject": "No paper", "text": "The printer is **empty**."}
BOTH = ("tickets:read", "tickets:write")


def headers(app: Flask, email: str, *permissions: str) -> dict[str, str]:
    return bearer(make_token(app, email, *permissions))


def test_a_program_writes_and_closes_a_ticket(app: Flask, visitor: Visitor):
    sent = headers(app, add_customer(app, "zoe@acme.example", "Acme"), *BOTH)
    call = visitor.client.open
    added = call("/api/v1/tickets", method="POST", json=TICKET, headers=sent)
    assert (added.status_code, added.get_json()["status"]) == (201, "open")
    path = f"/api/v1/tickets/{added.get_json()['id']}"
    comment = {"text": "In the hall."}
    answer = call(f"{path}/comments", method="POST", json=comment, headers=sent)
    assert answer.status_code == 201
    comments = call(f"{path}/comments", headers=sent).get_json()
    assert [row["text"] for row in comments] == ["In the hall."]
    closed = {"status": "closed"}
    assert call(path, method="PATCH", json=closed, headers=sent).status_code == 200
    assert call("/api/v1/tickets?status=open", headers=sent).get_json() == []
    (listed,) = call("/api/v1/tickets", headers=sent).get_json()
    assert listed == call(path, headers=sent).get_json()


def test_a_token_reads_no_other_organisation(app: Flask, visitor: Visitor):
    add_customer(app, "zoe@acme.example", "Acme")
    path = f"/api/v1/tickets/{add_ticket(app, 'zoe@acme.example')}"
    eve = add_customer(app, "eve@globex.example", "Globex")
    sent = headers(app, eve, *BOTH)
    assert visitor.get(path, headers=sent).status_code == 404
    assert visitor.get(f"{path}/comments", headers=sent).status_code == 404
    assert visitor.get("/api/v1/tickets", headers=sent).get_json() == []


def test_a_token_that_reads_does_not_write(app: Flask, visitor: Visitor):
    zoe = add_customer(app, "zoe@acme.example", "Acme")
    sent = headers(app, zoe, "tickets:read")
    answer = visitor.client.post("/api/v1/tickets", json=TICKET, headers=sent)
    assert answer.status_code == 403
    assert visitor.get("/api/v1/docs", headers=sent).status_code == 200
