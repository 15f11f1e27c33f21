"""Cross-origin requests: which other sites' pages may call the APIs (Fetch standard).

Only for the paths of APIs and the origins in APP_CORS_ORIGINS, and never with cookies:
these pages send an access token.
"""

from flask import Flask, Response, current_app, request
from werkzeug.exceptions import HTTPException

from bulwark.settings import Config
from bulwark.web import problems

# What a page may send and read; browsers allow simple headers anyway.
SENT = "Authorization, Content-Type, Idempotency-Key, If-Match, If-None-Match"
READ = (
    "ETag, Idempotent-Replayed, Link, Location, RateLimit, RateLimit-Policy,"
    " Retry-After, WWW-Authenticate, X-Request-ID"
)
# How long browsers keep the response to a preflight; Chromium's maximum.
KEPT = 7200  # seconds
PREFLIGHT = "Access-Control-Request-Method"


def init_app(app: Flask, config: Config) -> None:
    """Answer preflights before access is checked: they have no token."""
    if not config.cors_origins:
        return
    allowed = frozenset(config.cors_origins)

    def is_allowed() -> bool:
        return request.headers.get("Origin") in allowed and problems.apply()

    @app.before_request
    def _answer_preflights() -> Response | None:
        if request.method != "OPTIONS" or PREFLIGHT not in request.headers:
            return None
        return _preflight() if is_allowed() else None

    @app.after_request
    def _allow_origin(response: Response) -> Response:
        if problems.apply():
            response.vary.add("Origin")
        if is_allowed():
            response.headers["Access-Control-Allow-Origin"] = request.headers["Origin"]
            response.headers["Access-Control-Expose-Headers"] = READ
        return response


def _preflight() -> Response:
    response = Response(status=204)
    response.headers["Access-Control-Allow-Methods"] = ", ".join(_methods())
    response.headers["Access-Control-Allow-Headers"] = SENT
    response.headers["Access-Control-Max-Age"] = str(KEPT)
    return response


def _methods() -> list[str]:
    """Return the methods of the path; none if it does not exist."""
    adapter = current_app.create_url_adapter(request)
    try:
        methods = adapter.allowed_methods() if adapter else []
    except HTTPException:
        methods = []
    return sorted(methods)
