"""Which page sent a form: one of this service, as its browser says in some header.

Browsers and proxies may remove headers, so one that names this service is enough; none
may name another site.
"""

from collections.abc import Iterator

from flask import request
from flask_wtf.csrf import CSRFError, same_origin

HINT = (
    "We can't tell which page sent this form: a browser setting, an extension or a"
    " proxy removed the referrer. Allow it for this site, or use another browser. Then"
    " go back, reload the page and send it again."
)


class OriginError(CSRFError):  # type: ignore[misc]
    """No header says that a page of this service sent the request, or one denies it."""

    description = HINT


def check() -> None:
    """Refuse a request that a page of another site sent, or perhaps sent."""
    said = list(_said())
    if not said or not all(said):
        raise OriginError


def _said() -> Iterator[bool]:
    """Yield, for each header that says something, whether it was this service."""
    ours = f"{request.scheme}://{request.host}/"
    site = request.headers.get("Sec-Fetch-Site", "none")
    if site != "none":  # of what people do themselves, such as to reload
        yield site == "same-origin"
    origin = request.headers.get("Origin", "null")
    if origin != "null":  # of a page that sends no referrer, among others
        yield same_origin(origin, ours)
    if request.referrer:
        yield same_origin(request.referrer, ours)
