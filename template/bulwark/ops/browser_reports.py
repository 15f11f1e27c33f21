"""`/browser-reports`: what browsers blocked on pages of this service (CSP and COEP).

Anyone can send a report, with any content. So each network and all together have a
limit, and a log line contains known words, origins and routes only: a path could hold
the token of a link, and a sample of a script what a user entered.

Browsers send reports without a CSRF token. A report changes nothing but a count.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from flask import Blueprint, Flask, abort, current_app, request
from flask.typing import ResponseReturnValue
from limits import parse
from werkzeug.exceptions import HTTPException

from bulwark.identity.csrf import csrf
from bulwark.observability import metrics
from bulwark.observability.logging import log
from bulwark.web import headers
from bulwark.web.access import public
from bulwark.web.input_validation import is_url
from bulwark.web.rate_limits import limiter, network

blueprint = Blueprint("browser_reports", __name__)

MIMETYPES = ("application/reports+json", "application/csp-report")
MAX_BODY = 64 * 1024  # bytes
PER_NETWORK, OVERALL = parse("60 per minute"), parse("600 per minute")
EMBEDDER_POLICY, EXTENSION = "embedder-policy", "extension"
OTHER, DROPPED = "other", "dropped"
# The directives that may be violated; browsers also name parts of two of them.
DIRECTIVES = {
    *(name for name in headers.CSP if not name.startswith("report-")),
    *headers.EXTENSIBLE,
    *("script-src-elem", "script-src-attr", "style-src-elem", "style-src-attr"),
}
# What is blocked, if it has no URL.
KEYWORDS = {
    *("inline", "eval", "wasm-eval", "self", "data", "blob", "about", "filesystem"),
    *("trusted-types-policy", "trusted-types-sink"),
}
HOST = re.compile(r"[A-Za-z0-9.-]{1,253}")
SCHEMES = ("https", "http", "wss", "ws")


class Report(NamedTuple):
    """What a log line contains of a report."""

    directive: str
    blocked: str
    page: str


def init_app(app: Flask) -> None:
    """Receive reports, and show a count of zero before the first."""
    app.register_blueprint(blueprint)
    counter = app.extensions["metrics"].browser_reports
    for label in (*DIRECTIVES, EMBEDDER_POLICY, EXTENSION, OTHER, DROPPED):
        counter.labels(label)


@blueprint.post(headers.REPORTS)
@public
@csrf.exempt  # type: ignore[untyped-decorator]
def receive() -> ResponseReturnValue:
    """Log and count reports; above a limit, only count that some were dropped.

    A page may cause many reports at once, so a limit is no error of the client.
    """
    if request.mimetype not in MIMETYPES:
        abort(415, f"Send {MIMETYPES[0]}.")
    if not _is_within_limits():
        _count(DROPPED)
        return "", 204
    request.max_content_length = MAX_BODY
    for position, report in enumerate(_reports(request.get_json(force=True))):
        if position and not _is_within_limits():
            _count(DROPPED)
            break
        _count(report.directive)
        if report.directive != EXTENSION:
            log.warning("browser_report", **report._asdict())
    return "", 204


def _is_within_limits() -> bool:
    hit = limiter.limiter.hit
    return hit(PER_NETWORK, "reports", network()) and hit(OVERALL, "reports")


def _count(directive: str) -> None:
    metrics.current().browser_reports.labels(directive).inc()


def _reports(sent: Any) -> Iterator[Report]:
    """Yield the reports of a body: a list of them, or one in the older format."""
    for entry in sent if isinstance(sent, list) else [sent]:
        if not isinstance(entry, dict):
            abort(400, "Send reports as JSON objects.")
        body = entry.get("csp-report", entry.get("body"))
        yield _read(entry, body if isinstance(body, dict) else {})


def _read(entry: Mapping[str, Any], body: Mapping[str, Any]) -> Report:
    blocked = _text(body, "blockedURL", "blocked-uri")
    source = _text(body, "sourceFile", "source-file")
    page = _text(body, "documentURL", "document-uri") or _text(entry, "url")
    directive = _text(body, "effectiveDirective", "effective-directive")
    if _is_of_an_extension(blocked) or _is_of_an_extension(source):
        label = EXTENSION
    elif entry.get("type") == "coep":
        label = EMBEDDER_POLICY
    else:
        label = directive if directive in DIRECTIVES else OTHER
    return Report(label, _origin(blocked), _route(page))


def _text(of: Mapping[str, Any], *names: str) -> str:
    """Return the first text among values."""
    return next((of[name] for name in names if isinstance(of.get(name), str)), "")


def _is_of_an_extension(url: str) -> bool:
    return url.partition(":")[0].endswith("-extension")


def _origin(url: str) -> str:
    """Return the origin of a URL, or the keyword for what has none."""
    if (word := url.partition(":")[0]) in KEYWORDS:
        return word
    if not is_url(url):
        return OTHER
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES or not HOST.fullmatch(parts.hostname or ""):
        return OTHER
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname}{port}"


def _route(url: str) -> str:
    """Return the route of a page of this service, as the log names routes."""
    path = urlsplit(url).path if is_url(url) else ""
    try:
        rule, _ = current_app.url_map.bind("").match(path, "GET", return_rule=True)
    except HTTPException:
        return OTHER
    return rule.rule
