"""The pages of /account for users who are signed in.

They show and change what `identity` stores, whose functions they use, and the events of
`audit`. This room uses `identity` and the rooms below it, but not `ops` beside it.
"""

from flask import Flask

from bulwark.account import (
    activity,
    email_changes,
    jobs,
    overview,
    profile,
    second_factors,
    sessions,
    terms,
    tokens,
    unsubscribing,
)
from bulwark.account.blueprint import blueprint
from bulwark.identity import throttling

__all__ = [
    "activity",
    "init_app",
    "jobs",
    "overview",
    "profile",
    "second_factors",
    "sessions",
    "terms",
]


def init_app(app: Flask) -> None:
    """Register the pages."""
    app.register_blueprint(blueprint)
    app.register_blueprint(tokens.blueprint)
    app.register_blueprint(unsubscribing.blueprint)
    email_changes.init_app(app)
    throttling.limit_requests(app)  # All views that it names are registered now.
