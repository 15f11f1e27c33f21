"""Which page sent a form: one of this service, as its browser says in some header.

Browsers and proxies may remove headers, so one that names this service is enough; none
may name another site.
"""

from collections.abc import Iterator
from urllib.parse import urlsplit

from flask import request
from flask_wtf.csrf import CSRFError, same_origin

from bulwark import config

HIDDEN = (
    "We can't tell which page sent this form: a browser setting, an extension or a"
    " proxy removed the referrer. Allow it for this site, or use another browser. Then"
    " go back, reload the page and send it again."
)
FOREIGN = (
    "A page of another site sent it, so we did nothing. If you wanted this, go to the"
    " page here yourself and do it there. If you didn't, someone may have tried to act"
    " in your name."
)


class OriginError(CSRFError):  # type: ignore[misc]
    """No header says that a page of this service sent the request, or one denies it."""

    title = "This form may come from another site"
    description = HIDDEN


class ForeignOriginError(OriginError):
    """A header names another site."""

    title = "This form came from another site"
    description = FOREIGN


def check() -> None:
    """Refuse a request that a page of another site sent, or perhaps sent."""
    said = list(_said())
    if not all(said):
        raise ForeignOriginError
    if not said:
        raise OriginError


def ours() -> list[str]:
    """Return what browsers may call this service in the current request.

    A proxy may leave out the port that visitors use, which APP_BASE_URL has.
    """
    found = [f"{request.scheme}://{request.host}"]
    base = config.current().base_url
    if urlsplit(base).hostname == urlsplit(found[0]).hostname and base not in found:
        found.append(base)
    return found


def _said() -> Iterator[bool]:
    """Yield, for each header that says something, whether it was this service."""
    site = request.headers.get("Sec-Fetch-Site", "none")
    if site != "none":  # of what people do themselves, such as to reload
        yield site == "same-origin"
    origin = request.headers.get("Origin", "null")
    if origin != "null":  # of a page that sends no referrer, among others
        yield _is_ours(origin)
    if request.referrer:
        yield _is_ours(request.referrer)


def _is_ours(url: str) -> bool:
    return any(same_origin(url, f"{origin}/") for origin in ours())
