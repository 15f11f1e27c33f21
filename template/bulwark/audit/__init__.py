"""Security events, and the audit trail that shows whether someone changed them."""

from flask import Flask

from bulwark.audit import commands


def init_app(app: Flask) -> None:
    """Add `flask audit`."""
    commands.init_app(app)
