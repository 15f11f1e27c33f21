"""The API of tickets."""

from flask import Flask

from tests.app.helpers import add_customer, add_ticket
from tests.conftest import ApiClients

TICKET = {"subject": "No paper", "text": "The printer is **empty**."}
BOTH = ("tickets:read", "tickets:write")


def test_a_program_writes_and_closes_a_ticket(app: Flask, api_client: ApiClients):
    client = api_client(add_customer(app, "zoe@acme.example", "Acme"), *BOTH)
    added = client.post("/api/v1/tickets", json=TICKET)
    assert (added.status_code, added.get_json()["status"]) == (201, "open")
    path = f"/api/v1/tickets/{added.get_json()['id']}"
    comment = client.post(f"{path}/comments", json={"text": "In the hall."})
    assert comment.status_code == 201
    comments = client.get(f"{path}/comments").get_json()
    assert [row["text"] for row in comments] == ["In the hall."]
    assert client.patch(path, json={"status": "closed"}).status_code == 200
    assert client.get("/api/v1/tickets?status=open").get_json() == []
    (listed,) = client.get("/api/v1/tickets").get_json()
    assert listed == client.get(path).get_json()


def test_a_token_reads_no_other_organization(app: Flask, api_client: ApiClients):
    add_customer(app, "zoe@acme.example", "Acme")
    path = f"/api/v1/tickets/{add_ticket(app, 'zoe@acme.example')}"
    client = api_client(add_customer(app, "eve@globex.example", "Globex"), *BOTH)
    assert client.get(path).status_code == 404
    assert client.get(f"{path}/comments").status_code == 404
    assert client.get("/api/v1/tickets").get_json() == []


def test_a_token_that_reads_does_not_write(app: Flask, api_client: ApiClients):
    zoe = add_customer(app, "zoe@acme.example", "Acme")
    client = api_client(zoe, "tickets:read")
    assert client.post("/api/v1/tickets", json=TICKET).status_code == 403
    assert client.get("/api/v1/docs").status_code == 200
