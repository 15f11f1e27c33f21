"""The pages of /admin: the overview, users, roles, failed jobs, and the whole security
history.

The actions themselves are in `identity`. Each one has a page of its own that requires a
reason. Reauthentication returns to that page. This is the highest room: it uses all
others.
"""

from flask import Flask

from bulwark.admin import (
    history,
    invitations,
    jobs,
    overview,
    roles,
    user_actions,
    user_roles,
    users,
)
from bulwark.admin.confirmation import blueprint

__all__ = [
    "history",
    "init_app",
    "invitations",
    "jobs",
    "overview",
    "roles",
    "user_actions",
    "user_roles",
    "users",
]


def init_app(app: Flask) -> None:
    """Register the administration pages."""
    app.register_blueprint(blueprint)
