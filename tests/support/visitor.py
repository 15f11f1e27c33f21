"""A client like a browser: keeps cookies, submits forms, sends JSON as scripts do."""

import http.client
import json
import re
import socket
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from email.message import Message
from typing import Any
from urllib.parse import urlencode

DOMAIN = "shop.bulwark-tests.net"
ADDRESS, PASSWORD = "jo@bulwark-tests.net", "eleven-purple-tractors-sing"
FORM = "application/x-www-form-urlencoded"
TOKEN = re.compile(r'name="csrf_token"[^>]* value="([^"]+)"')
# Every response over TLS has each of these once.
SECURITY_HEADERS = {
    "content-security-policy",
    "cross-origin-embedder-policy",
    "cross-origin-opener-policy",
    "cross-origin-resource-policy",
    "permissions-policy",
    "referrer-policy",
    "strict-transport-security",
    "x-content-type-options",
    "x-frame-options",
    "x-request-id",
}


@dataclass(frozen=True)
class Response:
    """A response, with its body as text."""

    status: int
    headers: Message
    body: str

    def header(self, name: str) -> str | None:
        """Return the value of a header, which the response has at most once."""
        values = self.headers.get_all(name, [])
        assert len(values) < 2, f"{name} came more than once: {values}"
        return values[0] if values else None

    @property
    def location(self) -> str:
        return self.header("Location") or ""

    @property
    def values(self) -> Any:
        """What Flask-Security returns in JSON."""
        return json.loads(self.body)["response"]

    @property
    def security(self) -> dict[str, str]:
        """Return the security headers, each of which came once."""
        return {name: self.header(name) or "" for name in self.count_security()}

    @property
    def fixed_security(self) -> dict[str, str]:
        """Return the security headers that are the same in each response.

        Only pages of the service have reports, as the proxy's embed nothing.
        """
        return {
            name: value.removesuffix('; report-to="reports"')
            for name, value in self.security.items()
            if name not in ("content-security-policy", "x-request-id")
        }

    def words(self, *words: str) -> set[str]:
        """Return those of some words that the response contains, in any case."""
        text = f"{self.headers}{self.body}".lower()
        return {word for word in words if word in text}

    def count_security(self) -> Counter[str]:
        names = Counter(name.lower() for name in self.headers)
        return Counter({n: c for n, c in names.items() if n in SECURITY_HEADERS})


def exchange(
    stream: socket.socket | http.client.HTTPConnection,
    method: str,
    target: str,
    body: Any = None,
    headers: dict[str, str] | None = None,
) -> Response:
    """Send a request on an open connection; return its response."""
    if isinstance(stream, http.client.HTTPConnection):
        connection = stream
    else:
        connection = http.client.HTTPConnection(DOMAIN)
        connection.sock = stream
    connection.request(method, target, body, headers or {})
    response = connection.getresponse()
    text = response.read().decode(errors="replace")
    return Response(response.status, response.headers, text)


class Visitor:
    """Keeps cookies; a subclass has `connect`, which opens a connection to a port.

    Each request has a connection of its own, except where connections are `persistent`.
    """

    persistent = False

    def __init__(self, **headers: str) -> None:
        """Send these headers with each request; `X_Name` is X-Name."""
        self.headers, self.cookies, self.token = headers, dict[str, str](), ""
        self.connection = http.client.HTTPConnection(DOMAIN)

    def connect(self, port: int = 443) -> socket.socket:
        """Connect to a port of the service, over TLS except to port 80."""
        raise NotImplementedError

    def ask(
        self, target: str, method: str = "GET", body: Any = None, **headers: Any
    ) -> Response:
        """Send a request, over TLS unless `port=80`; `X_Name` is the header X-Name."""
        port = headers.pop("port", 443)
        sent = {"Host": DOMAIN, "Referer": f"https://{DOMAIN}/"}
        if not self.persistent:
            sent["Connection"] = "close"
        if self.cookies:
            sent["Cookie"] = "; ".join(f"{k}={v}" for k, v in self.cookies.items())
        sent |= {k.replace("_", "-"): v for k, v in (self.headers | headers).items()}
        response = self._exchange(port, method, target, body, sent)
        for cookie in response.headers.get_all("Set-Cookie", []):
            name, _, value = cookie.partition(";")[0].partition("=")
            self.cookies[name] = value
        if found := TOKEN.search(response.body):
            self.token = found[1]
        return response

    def _exchange(self, port: int, *request: Any) -> Response:
        if not self.persistent:
            with closing(self.connect(port)) as stream:
                return exchange(stream, *request)
        if self.connection.sock is None:
            self.connection.sock = self.connect(port)
        return exchange(self.connection, *request)

    def open_form(self, path: str) -> None:
        """Open a page with a form."""
        self.token = ""
        page = self.ask(path)
        assert self.token, page

    def submit(
        self, path: str, headers: Mapping[str, str] | None = None, /, **fields: str
    ) -> Response:
        """Submit a form with the last page's token; open its page if there is none."""
        if not self.token:
            self.open_form(path)
        body = urlencode({"csrf_token": self.token, **fields})
        return self.ask(path, "POST", body, **{"Content-Type": FORM, **(headers or {})})

    def prepare(self, path: str, to: str = "", **fields: str) -> Callable[[], Response]:
        """Open a page; return what submits its form, there or to another path."""
        self.open_form(path)
        body = urlencode({"csrf_token": self.token, **fields})
        return lambda: self.ask(to or path, "POST", body, Content_Type=FORM)

    def fill_in(self, path: str, **fields: str) -> Response:
        """Open a page and submit its form."""
        return self.prepare(path, **fields)()

    def sign_in(self, email: str, password: str = PASSWORD) -> Response:
        return self.fill_in("/login", email=email, password=password)

    def is_signed_in(self) -> bool:
        return self.ask("/account").status == 200

    def send(self, path: str, **values: Any) -> Response:
        """Send JSON, as a script of a page does."""
        self.open_form("/reset")
        kind = "application/json"
        headers = {"Accept": kind, "Content-Type": kind, "X-CSRFToken": self.token}
        return self.ask(path, "POST", json.dumps(values), **headers)
