"""Security headers of every response. Talisman sets most, one function the rest."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from flask import Flask, Response, current_app, g, request
from flask_talisman import Talisman

from bulwark.settings import Config, ConfigurationError
from bulwark.settings.fields import Problem
from bulwark.web.embedding import DIRECTIVES, FEATURES, POLICY, Embeds

# Where browsers send reports of what they blocked, and the name of that endpoint.
REPORTS, ENDPOINT = "/browser-reports", "reports"
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
    "trusted-types": ["'none'"],
    # Browsers that know `report-to` ignore `report-uri`.
    "report-uri": [REPORTS],
    "report-to": [ENDPOINT],
}
TRUSTED_TYPES = "trusted-types"
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
# RFC 6797; two years, the minimum in Mozilla's guideline 6.0 and for preload lists.
HSTS_SECONDS = 63_072_000
MISSED_BY_TALISMAN = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": f'require-corp; report-to="{ENDPOINT}"',
    "Cross-Origin-Resource-Policy": "same-origin",
    "Reporting-Endpoints": f'{ENDPOINT}="{REPORTS}"',
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
    policy = _policy(config.environment, csp_sources)
    _embed(app, policy)
    Talisman(
        app,
        content_security_policy=_joined(policy),
        content_security_policy_nonce_in=["script-src"],
        force_https_permanent=True,
        frame_options="DENY",
        permissions_policy=_permissions({}),
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
    wrong = sorted(csp_sources.keys() - {*EXTENSIBLE, TRUSTED_TYPES})
    for directive, added in csp_sources.items():
        form = POLICY if directive == TRUSTED_TYPES else HOST
        wrong += [source for source in added if not form.fullmatch(source)]
    if wrong:
        problem = Problem(
            f"CSP_SOURCES in app/settings.py contains {', '.join(wrong)}",
            "a policy with a gap protects no better than none",
            f"list hosts, as https://host, under one of {', '.join(EXTENSIBLE)},"
            " or names of policies under trusted-types",
        )
        raise ConfigurationError(environment, [problem])
    policy = {name: list(own) for name, own in CSP.items()}
    for name, added in csp_sources.items():
        if name == TRUSTED_TYPES:
            _allow_policies(policy, added)
        else:
            policy.setdefault(name, []).extend(added)
    return policy


def _embed(app: Flask, policy: Mapping[str, Sequence[str]]) -> None:
    """Give each view that embeds something a policy of its own."""
    app.extensions["isolation"] = isolation = {}
    views: Mapping[str, Any] = app.view_functions
    for endpoint, view in views.items():
        embedded: Embeds | None = getattr(view, "embeds", None)
        if embedded is None:
            continue
        own = {name: list(sources) for name, sources in policy.items()}
        for kind, origins in embedded.sources.items():
            sources = own.setdefault(DIRECTIVES[kind], [])
            sources.extend(origin for origin in origins if origin not in sources)
        _allow_policies(own, embedded.trusted_types)
        view.talisman_view_options = {
            "content_security_policy": _joined(own),
            "permissions_policy": _permissions(embedded.features),
        }
        isolation[endpoint] = MISSED_BY_TALISMAN | embedded.isolation()


def _allow_policies(policy: dict[str, list[str]], names: Sequence[str]) -> None:
    """Allow Trusted Types policies; 'none' may not stand beside a name."""
    allowed = [name for name in policy[TRUSTED_TYPES] if name != "'none'"]
    allowed += [name for name in names if name not in allowed]
    policy[TRUSTED_TYPES] = allowed or ["'none'"]


def _permissions(delegated: Mapping[str, Sequence[str]]) -> str:
    """Return the Permissions-Policy. A page delegates only what it may use itself."""
    allowed = {
        name: " ".join(["self", *(f'"{origin}"' for origin in origins)])
        for name, origins in delegated.items()
    }
    return ", ".join(f"{name}=({allowed.get(name, '')})" for name in FEATURES)


def _joined(policy: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Join what has no nonce now, because Talisman does it for each response."""
    scripts = " ".join(policy["script-src"])
    first, *others = (
        " ".join([name, *own]) for name, own in policy.items() if name != "script-src"
    )
    name, _, own = first.partition(" ")
    return {name: "; ".join([own, *others]), "script-src": scripts}


def _share_nonce() -> None:
    """Set the nonce in `g`, where Flask-Security's scripts read it."""
    g.csp_nonce = getattr(request, "csp_nonce", "")


def _set_the_rest(response: Response) -> Response:
    headers = response.headers
    present = {name.lower() for name, _ in headers}  # faster than a search for each
    isolation = current_app.extensions["isolation"]
    for name, value in isolation.get(request.endpoint, MISSED_BY_TALISMAN).items():
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
