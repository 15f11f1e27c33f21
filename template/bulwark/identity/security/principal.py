"""Flask-Principal's identity, created on first use.

Flask-Security's `roles_required` and the like use `g.identity`. Flask-Principal creates
it before each request, from every role and permission of the user, which takes longer
than looking up the session. Access declarations do not use it.
"""

from typing import Any

from flask import Flask
from flask_security import Security


def init_app(app: Flask, security: Security) -> None:
    """Create the identity on first use."""
    load = security.principal._on_before_request
    app.before_request_funcs[None].remove(load)
    kind: Any = app.app_ctx_globals_class

    class Globals(kind):  # type: ignore[misc]
        """The `g` of the app."""

        def __getattr__(self, name: str) -> Any:
            if name == "identity":
                load()  # sets it
            return super().__getattr__(name)

    app.app_ctx_globals_class = Globals
