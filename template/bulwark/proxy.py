"""Which host and which proxies a request may name, who sent it, and that it is safe."""

from ipaddress import IPv4Address, ip_address, ip_network
from typing import TYPE_CHECKING

from flask import Flask, abort, request
from werkzeug.middleware.proxy_fix import ProxyFix

from bulwark.config import Config

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")


class _WithoutForwarded:
    """Drops forwarding headers that nobody vouches for, once ProxyFix has read them.

    Talisman believes a raw `X-Forwarded-Proto`.
    """

    def __init__(self, wsgi_app: "WSGIApplication") -> None:
        self.wsgi_app = wsgi_app

    def __call__(
        self, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> "Iterable[bytes]":
        for name in [key for key in environ if key.startswith("HTTP_X_FORWARDED_")]:
            del environ[name]
        environ.pop("HTTP_FORWARDED", None)
        return self.wsgi_app(environ, start_response)


def init_app(app: Flask, config: Config) -> None:
    """Trust exactly the proxies and hosts that the settings name."""
    app.config["TRUSTED_HOSTS"] = list(config.allowed_hosts)
    app.config["PREFERRED_URL_SCHEME"] = "https"
    hops = config.proxy_hops
    app.wsgi_app = ProxyFix(  # type: ignore[method-assign]
        _WithoutForwarded(app.wsgi_app), x_for=hops, x_proto=hops, x_host=0
    )
    app.before_request(_refuse_unsafe_requests_without_tls)


def network_of(address: str) -> str:
    """Return who is behind an address: itself, or of IPv6 the /64 that it is in.

    One home or server has at least a /64 (RFC 6177), and could use each address once.
    What is no address, such as the name of a socket, is returned as it is.
    """
    try:
        sender = ip_address(address)
    except ValueError:
        return address
    if isinstance(sender, IPv4Address):
        return str(sender)
    if sender.ipv4_mapped:
        return str(sender.ipv4_mapped)
    return str(ip_network((sender, 64), strict=False))


def _refuse_unsafe_requests_without_tls() -> None:
    """Refuse what a redirect can't repair: its body crossed the network readable."""
    if not request.is_secure and request.method not in SAFE_METHODS:
        abort(403, "Use https. What you sent was readable on its way.")
