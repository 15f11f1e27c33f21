"""Checks of a request's host, proxies, client address and TLS."""

import re
from typing import TYPE_CHECKING

from flask import Flask, abort, request
from werkzeug.exceptions import SecurityError
from werkzeug.middleware.proxy_fix import ProxyFix

from bulwark.settings import Config

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
HEALTH, ASKS = ("/healthz", "/readyz"), ("GET", "HEAD")
# Azure's gateways, and AWS's if configured, add the client's port, which differs for
# each connection.
WITH_PORT = re.compile(r"\[(?P<ipv6>[^\]]+)\](:\d+)?|(?P<ipv4>[\d.]+):\d+", re.ASCII)


class _IPv6(str):
    """A host that Werkzeug would split at its first colon, as if a port followed."""

    __slots__ = ()

    def partition(self, sep: str) -> tuple[str, str, str]:
        """Return the whole host."""
        return str(self), "", ""


class _WithoutForwarded:
    """Drops untrusted forwarding headers, after ProxyFix has read the trusted ones.

    Talisman trusts a raw `X-Forwarded-Proto`. The port of the client's address is
    dropped too: limits, sessions and the audit trail use only the address.
    """

    def __init__(self, wsgi_app: "WSGIApplication") -> None:
        self.wsgi_app = wsgi_app

    def __call__(
        self, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> "Iterable[bytes]":
        for name in [key for key in environ if key.startswith("HTTP_X_FORWARDED_")]:
            del environ[name]
        environ.pop("HTTP_FORWARDED", None)
        environ["REMOTE_ADDR"] = _without_port(environ.get("REMOTE_ADDR", ""))
        return self.wsgi_app(environ, start_response)


class _HealthOfAnyHost:
    """Accepts health checks for any `Host`, as if it were the first allowed host.

    Load balancers check each server by its IP, some of them without TLS. The response
    is one word, the same for everyone, without a link.
    """

    def __init__(self, wsgi_app: "WSGIApplication", host: str) -> None:
        self.wsgi_app = wsgi_app
        self.host = host

    def __call__(
        self, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> "Iterable[bytes]":
        if environ["PATH_INFO"] in HEALTH and environ["REQUEST_METHOD"] in ASKS:
            environ |= {"HTTP_HOST": self.host, "wsgi.url_scheme": "https"}
        return self.wsgi_app(environ, start_response)


def init_app(app: Flask, config: Config) -> None:
    """Trust exactly the proxies and hosts that the settings name."""
    app.config["TRUSTED_HOSTS"] = [
        _IPv6(host) if host.startswith("[") else host for host in config.allowed_hosts
    ]
    app.config["PREFERRED_URL_SCHEME"] = "https"
    hops = config.proxy_hops
    health = _HealthOfAnyHost(app.wsgi_app, next(iter(config.allowed_hosts), ""))
    app.wsgi_app = ProxyFix(  # type: ignore[method-assign]
        _WithoutForwarded(health), x_for=hops, x_proto=hops, x_host=0
    )
    app.before_request(_refuse_other_hosts)
    app.before_request(_refuse_unsafe_requests_without_tls)


def _without_port(address: str) -> str:
    found = WITH_PORT.fullmatch(address)
    return (found["ipv6"] or found["ipv4"]) if found else address


def _refuse_other_hosts() -> None:
    """Reject other hosts before anything else, so that no page links to them."""
    if isinstance(request.routing_exception, SecurityError):
        raise request.routing_exception


def _refuse_unsafe_requests_without_tls() -> None:
    """Reject a request whose body was sent in plain text: a redirect is too late."""
    if not request.is_secure and request.method not in SAFE_METHODS:
        abort(403, "Use https. Your request was sent in plain text.")
