"""CSRF protection of all forms and JSON requests."""

from flask import Flask, current_app, g, request
from flask_login import current_user
from flask_wtf.csrf import CSRFProtect

from bulwark.identity.token_authentication import has_bearer_token
from bulwark.web import access, body_limits, origins, problems
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
        elif not _is_refused_anyway():
            super().protect(apply_exemptions)
            if g.get("csrf_valid"):
                origins.check()


def _is_refused_anyway() -> bool:
    """Return whether the access check refuses the request, without reading its body.

    Programs expect 401. A large body of somebody unknown would be stored and parsed.
    """
    endpoint = request.endpoint or ""
    large = body_limits.limit_of(current_app, endpoint) is not None
    if not (large or problems.apply()) or current_user.is_authenticated:
        return False
    declared = access.declared_for(current_app, endpoint)
    return declared not in (None, access.PUBLIC)


csrf = CSRF()
