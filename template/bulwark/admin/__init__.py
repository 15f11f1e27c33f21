"""Administration pages: the overview, people, roles, and the whole security history.

The actions themselves are in `identity/accounts.py`. Each action has a page of its own
that requires a reason. Reauthentication returns to that page.
"""

from flask import Flask

from bulwark.admin import history, overview, roles, users
from bulwark.admin.confirmation import blueprint

__all__ = ["history", "init_app", "overview", "roles", "users"]


def init_app(app: Flask) -> None:
    """Register the administration pages."""
    app.register_blueprint(blueprint)
