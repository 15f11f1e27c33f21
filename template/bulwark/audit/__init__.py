"""Security events, and the audit trail that shows whether someone changed them.

It knows no users: `web` and the rooms above it record what happens there.
"""

from collections.abc import Mapping

from flask import Flask

from bulwark.audit import commands, pending, promises
from bulwark.settings import Config


def init_app(app: Flask, config: Config, given_up: Mapping[str, str]) -> None:
    """Add each new event to the trail and the log; add `flask audit` and `promises`."""
    pending.register()
    commands.init_app(app)
    promises.init_app(app, config, given_up)
