"""Administration: an overview, people, roles, and everybody's security history.

What is done is in `identity/accounts.py`. Each act has a page of its own that asks why:
there one comes back to after showing once more that it is still oneself.
"""

from flask import Flask

from bulwark.admin import history, overview, people, roles
from bulwark.admin.acts import blueprint

__all__ = ["history", "init_app", "overview", "people", "roles"]


def init_app(app: Flask) -> None:
    """Serve the pages."""
    app.register_blueprint(blueprint)
