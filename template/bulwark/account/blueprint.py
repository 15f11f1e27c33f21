"""The blueprint of the account pages, and what they share."""

from datetime import datetime
from typing import Any

from flask import Blueprint

blueprint = Blueprint("account", __name__)


def to_json(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return dictionaries with their times as JSON strings."""
    return [
        {
            name: value.isoformat() if isinstance(value, datetime) else value
            for name, value in item.items()
        }
        for item in items
    ]
