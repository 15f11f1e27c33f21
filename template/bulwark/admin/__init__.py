"""Administration: people, roles, and the security history of everybody.

What is done is in `identity/accounts.py`. Each act has a page of its own that asks why:
there one comes back to after showing once more that it is still oneself.
"""

from flask import Flask

from bulwark.admin import history, people, roles
from bulwark.admin.acts import blueprint

__all__ = ["history", "init_app", "people", "roles"]


def init_app(app: Flask) -> None:
    """Serve the pages."""
    app.register_blueprint(blueprint)
