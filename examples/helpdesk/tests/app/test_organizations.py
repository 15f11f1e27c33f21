"""Organizations and their members."""

from flask import Flask

from tests.app.helpers import add_ticket
from tests.conftest import Visitor, add_person


def test_an_agent_adds_an_organization_and_a_member(
    app: Flask, agent: Visitor, visitor: Visitor
):
    zoe = add_person(app, "zoe@acme.example", "customer")
    path = agent.submit("/organizations/", {"name": "Acme"}).location
    assert "taken" not in agent.get(path).text
    again = agent.submit("/organizations/", {"name": "Acme"})
    assert "There is already an organization with this name." in again.text
    unknown = agent.submit(path, {"email": "nobody@acme.example"})
    assert "No user has this address." in unknown.text
    agent.submit(path, {"email": "Zoe@Acme.example"})
    assert zoe in agent.get(path).text
    visitor.sign_in(zoe)
    assert visitor.get(f"/tickets/{add_ticket(app, zoe)}").status_code == 200


def test_customers_manage_nothing(customer: Visitor):
    assert customer.get("/organizations/").status_code == 403
    assert "/organizations/" not in customer.get("/").text
