"""Customers of two organizations, and an agent."""

from pathlib import Path

import pytest
from flask import Flask

from tests.app.helpers import add_customer
from tests.conftest import Visitor, add_person


@pytest.fixture
def customer(app: Flask, visitor: Visitor) -> Visitor:
    """Return a customer who is signed in."""
    visitor.sign_in(add_customer(app, "zoe@acme.example", "Acme"))
    return visitor


@pytest.fixture
def stranger(app: Flask, other_visitor: Visitor) -> Visitor:
    """Return a customer of another organization who is signed in."""
    other_visitor.sign_in(add_customer(app, "eve@globex.example", "Globex"))
    return other_visitor


@pytest.fixture
def agent(app: Flask, mailbox: Path) -> Visitor:
    """Return an agent who is signed in."""
    visitor = Visitor(app, mailbox)
    visitor.sign_in(add_person(app, "ada@help.example", "agent"))
    return visitor
