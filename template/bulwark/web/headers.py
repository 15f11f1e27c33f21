"""Security headers of every response. Talisman sets most, one function the rest."""

import re
from collections.abc import Mapping, Sequence

from flask import Flask, Response, g, request
from flask_talisman import Talisman

from bulwark.settings import Config, ConfigurationError
from bulwark.settings.fields import Problem

# Everything that is not listed is blocked. Scripts need the nonce of their response.
CSP: dict[str, list[str]] = {
    "default-src": ["'none'"],
    "script-src": [],
    "style-src": ["'self'"],
    "img-src": ["'self'", "data:"],
    "font-src": ["'self'"],
    "connect-src": ["'self'"],
    "manifest-src": ["'self'"],
    "form-action": ["'self'"],
    "base-uri": ["'none'"],
    "frame-ancestors": ["'none'"],
    "require-trusted-types-for": ["'script'"],
}
# The directives to which an app may add hosts, and the form of a host.
EXTENSIBLE = (
    "connect-src",
    "font-src",
    "form-action",
    "frame-src",
    "img-src",
    "media-src",
    "script-src",
    "style-src",
)
HOST = re.compile(r"(https|wss)://(\*\.)?[a-z0-9-]+(\.[a-z0-9-]+)+(:\d+)?(/[^\s;,]*)?")
# Features of browsers that this service does not use.
UNUSED_FEATURES = (
    "accelerometer",
    "browsing-topics",
    "camera",
    "display-capture",
    "geolocation",
    "gyroscope",
    "magnetometer",
    "microphone",
    "midi",
    "payment",
    "usb",
)
# RFC 6797; two years, the minimum in Mozilla's guideline 6.0 and for preload lists.
HSTS_SECONDS = 63_072_000
MISSED_BY_TALISMAN = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
}
# For what users uploaded: if a browser shows it in spite of `attachment`, it runs no
# scripts and no plugins, and has an origin of its own.
SANDBOX = "default-src 'none'; frame-ancestors 'none'; sandbox"
# For the HTML of an email in a frame of the mailbox. Its links open in new tabs.
PREVIEW = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'none'; "
    "frame-ancestors 'self'; sandbox allow-popups allow-popups-to-escape-sandbox"
)
# For responses that get no headers from the functions; the proxy adds the rest.
LAST_RESORT = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    **MISSED_BY_TALISMAN,
}


def init_app(
    app: Flask, config: Config, csp_sources: Mapping[str, Sequence[str]]
) -> None:
    """Set the headers; the CSP includes the hosts that the app's pages load from."""
    app.after_request(_set_the_rest)
    Talisman(
        app,
        content_security_policy=_joined(_policy(config.environment, csp_sources)),
        content_security_policy_nonce_in=["script-src"],
        force_https_permanent=True,
        frame_options="DENY",
        permissions_policy=", ".join(f"{name}=()" for name in UNUSED_FEATURES),
        referrer_policy="same-origin",
        session_cookie_samesite="Lax",
        # A browser applies HSTS to every port: on localhost to other projects too.
        strict_transport_security=config.environment != "development",
        strict_transport_security_max_age=HSTS_SECONDS,
    )
    app.config["SESSION_COOKIE_NAME"] = config.cookie("session")
    app.config["SESSION_COOKIE_SECURE"] = True
    app.before_request(_share_nonce)


def sandbox(response: Response, policy: str = SANDBOX) -> None:
    """Give a strict policy to a response whose content a user chose."""
    response.sandboxed = policy  # type: ignore[attr-defined]


def show_own_frames(response: Response) -> None:
    """Let a page show frames of this service."""
    response.shows_own_frames = True  # type: ignore[attr-defined]


def _policy(
    environment: str, csp_sources: Mapping[str, Sequence[str]]
) -> dict[str, list[str]]:
    unknown = csp_sources.keys() - set(EXTENSIBLE)
    sources = [source for added in csp_sources.values() for source in added]
    wrong = [*sorted(unknown), *(s for s in sources if not HOST.fullmatch(s))]
    if wrong:
        problem = Problem(
            f"CSP_SOURCES in app/settings.py contains {', '.join(wrong)}",
            "a policy with a gap protects no better than none",
            f"list hosts, as https://host, under one of {', '.join(EXTENSIBLE)}",
        )
        raise ConfigurationError(environment, [problem])
    policy = {name: list(own) for name, own in CSP.items()}
    for name, added in csp_sources.items():
        policy.setdefault(name, []).extend(added)
    return policy


def _joined(policy: dict[str, list[str]]) -> dict[str, str]:
    """Join what has no nonce now, because Talisman does it for each response."""
    scripts = " ".join(policy.pop("script-src"))
    first, *others = (" ".join([name, *own]) for name, own in policy.items())
    name, _, own = first.partition(" ")
    return {name: "; ".join([own, *others]), "script-src": scripts}


def _share_nonce() -> None:
    """Set the nonce in `g`, where Flask-Security's scripts read it."""
    g.csp_nonce = getattr(request, "csp_nonce", "")


def _set_the_rest(response: Response) -> Response:
    headers = response.headers
    present = {name.lower() for name, _ in headers}  # faster than a search for each
    for name, value in MISSED_BY_TALISMAN.items():
        if name.lower() not in present:
            headers.add(name, value)
    if hasattr(response, "sandboxed"):
        headers["Content-Security-Policy"] = response.sandboxed
        if response.sandboxed == PREVIEW:
            headers["X-Frame-Options"] = "SAMEORIGIN"
    if hasattr(response, "shows_own_frames"):
        headers["Content-Security-Policy"] += "; frame-src 'self'"
    # Asking for a column could load the user again, who may have been deleted.
    is_anonymous = getattr(g.get("_login_user"), "is_anonymous", True)
    if request.endpoint != "static" and not is_anonymous:
        headers["Cache-Control"] = "no-store, private"
    return response
