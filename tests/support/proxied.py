"""The service behind nginx or Apache, on Debian 12 or 13, over the network."""

import json
import socket
import ssl
import subprocess
from pathlib import Path
from typing import Any

from tests.support.deployed import LIVE, UNITS, Server
from tests.support.servers import PATIENCE, eventually
from tests.support.visitor import DOMAIN, Response, exchange

HOME_LINK = '<a href="/">Go to the home page</a>'  # in each page of bulwark/error.html


SECRET = "eleven-purple-tractors-sing"


MEBIBYTE = 1024 * 1024


# The team's half: a page that returns what reached it, one that fails, and files.
VIEWS = f"""

from bulwark import body_limit


@blueprint.route("/test/seen", methods=["GET", "POST"])
@csrf.exempt
@public
def seen() -> ResponseReturnValue:
    told = {{"address": request.remote_addr, "secure": request.is_secure}}
    told |= {{"host": request.host, "uri": request.environ["RAW_URI"]}}
    told["body"] = len(request.get_data())
    return told | {{"headers": dict(request.headers)}}


@blueprint.post("/test/large")
@csrf.exempt
@public
@body_limit(2 * {MEBIBYTE})
def large() -> ResponseReturnValue:
    return {{"body": len(request.get_data())}}


@blueprint.get("/test/broken")
@public
def broken() -> ResponseReturnValue:
    password = "{SECRET}"
    raise RuntimeError(f"It has {{len(password)}} letters")
"""


# Another proxy is in front of this one, and sends the client's address in X-Client.
TEAM = {
    "nginx": """
set_real_ip_from 10.0.0.0/8;
real_ip_header X-Client;
location = /test/file {
    alias %(public)s/static/app.css;
}
location = /test/large {
    client_max_body_size 2m;
    proxy_pass http://%(name)s;
}
location = /test/own-header {
    add_header X-Own yes always;
    include %(name)s/headers.conf;
    return 204;
}
""",
    "apache": """
RemoteIPHeader X-Client
# Without it, addresses outside 2000::/3 don't count.
RemoteIPInternalProxy 10.0.0.0/8
SetEnvIf Request_URI "^/test/large$" body_limit=2097152
ProxyPass /test/file !
Alias /test/file %(public)s/static/app.css
<Location /test/own-header>
    Header always set X-Own yes
    Redirect 204 /
</Location>
""",
}


class Site(Server):
    """The service behind one of the proxies, as a visitor and as root see it."""

    def __init__(self, disk: Path, proxy: str, suite: str) -> None:
        super().__init__(disk, parts=["web"])
        self.suite, self.unit = suite, UNITS[proxy]
        self.log = f"/var/log/{self.unit}/access.log"

    def neighbour(self, number: int) -> str:
        """Return another address to visit from: each has limits of its own."""
        return f"{self.visitor.rpartition('.')[0]}.{number}"

    def plug(self, port: int = 443, source: str | None = None) -> socket.socket:
        place = (source, 0) if source else None
        return socket.create_connection((self.address, port), PATIENCE, place)

    def tls(
        self, name: str | None = DOMAIN, source: str | None = None, **settings: Any
    ) -> ssl.SSLSocket:
        """Begin TLS with a server of that name; settings are the context's."""
        trust = self.path(f"{LIVE}/fullchain.pem").read_text()
        context = ssl.create_default_context(cadata=trust)
        # The certificate of these tests names the domain alone.
        context.check_hostname = name == DOMAIN
        for setting, value in settings.items():
            setattr(context, setting, value)
        context.set_alpn_protocols(["h2"] if settings else ["http/1.1"])
        return context.wrap_socket(self.plug(source=source), server_hostname=name)

    def get(
        self,
        target: str,
        method: str = "GET",
        body: Any = None,
        *,
        port: int = 443,
        name: str = DOMAIN,
        source: str | None = None,
        **headers: str,
    ) -> Response:
        """Ask for something; `X_Name` names X-Name."""
        sent = {"Host": name, "Connection": "close"}
        sent |= {key.replace("_", "-"): value for key, value in headers.items()}
        with self.tls(name, source) if port == 443 else self.plug(port) as stream:
            return exchange(stream, method, target, body, sent)

    def send_lines(self, *lines: str | bytes, port: int = 443) -> bytes:
        """Send lines unchanged; return all that comes back."""
        sent = b"\r\n".join(x.encode() if isinstance(x, str) else x for x in lines)
        with self.tls() if port == 443 else self.plug(port) as stream:
            stream.sendall(sent + b"\r\n\r\n")
            received = b""
            while True:
                try:
                    more = stream.recv(65536)
                except ConnectionResetError:
                    return received
                if not more:
                    return received
                received += more

    def logged(self, request_id: str | None) -> dict[str, Any]:
        """Wait for the line that the proxy logs about a request, and return it."""

        def look() -> dict[str, Any] | None:
            lines = map(json.loads, self.path(self.log).read_text().splitlines())
            return next((x for x in lines if x["request_id"] == request_id), None)

        return eventually(look)

    def apply(self) -> subprocess.CompletedProcess[str]:
        return self.deploy(f"{self.proxy}/apply")


PLACES = [(proxy, suite) for suite in ("trixie", "bookworm") for proxy in TEAM]


def curl(site: Site, *arguments: str, path: str = "/healthz") -> list[str]:
    """Ask with the machine's own curl, which speaks what its OpenSSL can."""
    place = ("--resolve", f"{DOMAIN}:443:127.0.0.1", f"https://{DOMAIN}{path}")
    trust = ("--cacert", f"{LIVE}/fullchain.pem", "--silent", "--show-error")
    return site.run("curl", *trust, *arguments, *place).splitlines()
