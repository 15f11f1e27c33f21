"""Checks that a form was sent from a page of this service, by request headers.

Browsers and proxies may remove headers, so one header that names this service is
enough. No header may name another site.
"""

from collections.abc import Iterator
from urllib.parse import urlsplit

from flask import request
from flask_wtf.csrf import CSRFError, same_origin

from bulwark import settings

HIDDEN = (
    "We can't verify which page sent this form, because a browser setting, an extension"
    " or a proxy removed the referrer. Allow it for this site, or use another browser."
    " Then go back, reload the page and submit the form again."
)
FOREIGN = (
    "A page of another site sent this form, so we rejected it. If you intended this,"
    " open the page on this site and submit the form there. If not, someone may have"
    " tried to act on your behalf."
)


class OriginError(CSRFError):  # type: ignore[misc]
    """No header shows that a page of this service sent the request."""

    title = "This form may come from another site"
    description = HIDDEN


class ForeignOriginError(OriginError):
    """A header names another site."""

    title = "This form came from another site"
    description = FOREIGN


def check() -> None:
    """Reject a request unless a page of this service sent it."""
    matches = list(_matches())
    if not all(matches):
        raise ForeignOriginError
    if not matches:
        raise OriginError


def ours() -> list[str]:
    """Return the origins that browsers may use for this service.

    A proxy may drop the public port from the host, so APP_BASE_URL is included.
    """
    found = [f"{request.scheme}://{request.host}"]
    base = settings.current().base_url
    if urlsplit(base).hostname == urlsplit(found[0]).hostname and base not in found:
        found.append(base)
    return found


def _matches() -> Iterator[bool]:
    """Yield, for each header that names an origin, whether it is this service."""
    site = request.headers.get("Sec-Fetch-Site", "none")
    if site != "none":  # "none" means user actions, such as a reload
        yield site == "same-origin"
    origin = request.headers.get("Origin", "null")
    if origin != "null":  # "null" comes from pages without a referrer, among others
        yield _is_ours(origin)
    if request.referrer:
        yield _is_ours(request.referrer)


def _is_ours(url: str) -> bool:
    return any(same_origin(url, f"{origin}/") for origin in ours())
