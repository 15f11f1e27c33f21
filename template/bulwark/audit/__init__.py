"""Security events, and the audit trail that shows whether someone changed them.

It knows no users: `web` and the rooms above it record what happens there.
"""

from flask import Flask

from bulwark.audit import commands, pending


def init_app(app: Flask) -> None:
    """Add each new event to the trail and the log, and add `flask audit`."""
    pending.register()
    commands.init_app(app)
