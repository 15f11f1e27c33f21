"""What the tests of the base share."""

import pytest
from flask import Flask

from bulwark.identity.models import ADMINISTRATOR
from tests.conftest import Visitor, add_person


@pytest.fixture
def ada(app: Flask, visitor: Visitor) -> Visitor:
    """An administrator who is signed in."""
    visitor.sign_in(add_person(app, "ada@example.org", ADMINISTRATOR))
    return visitor
