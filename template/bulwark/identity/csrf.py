"""CSRF protection of all forms and JSON requests."""

from flask import Flask, g, request
from flask_wtf.csrf import CSRFProtect

from bulwark.identity.token_authentication import has_bearer_token
from bulwark.web import origins
from bulwark.web.proxy import SAFE_METHODS


def init_app(app: Flask) -> None:
    """Reject unsafe requests without a CSRF token."""
    csrf.init_app(app)


class CSRF(CSRFProtect):  # type: ignore[misc]
    """Requires a CSRF token, except for requests with an access token.

    A browser never sends an access token by itself, and a request with one has no
    session: if the token is invalid, the request is anonymous.
    """

    def protect(self, apply_exemptions: bool = False) -> None:
        """Check the request, unless its method is safe."""
        if request.method in SAFE_METHODS:
            return
        if has_bearer_token():
            g.csrf_valid = True
        else:
            super().protect(apply_exemptions)
            if g.get("csrf_valid"):
                origins.check()


csrf = CSRF()
