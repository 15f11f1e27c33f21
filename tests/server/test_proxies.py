"""nginx and Apache keep the same promises, on Debian 12 and 13, over the network.

How long others wait while slow clients hold connections, for both proxies:

    bin/test tests/server/test_proxies.py -k slow_ --junitxml=slow.xml
    grep -o 'name="p99"[^/]*' slow.xml
"""

import http.client
import json
import os
import re
import selectors
import socket
import ssl
import statistics
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from jinja2 import StrictUndefined, Template

from tests.conftest import ROOT
from tests.support.certificates import certify
from tests.support.deployed import ALIAS, HOME, LIVE, NAME, UNITS, Server
from tests.support.disks import installed
from tests.support.load import Load
from tests.support.servers import PATIENCE, eventually
from tests.support.visitor import DOMAIN, SECURITY_HEADERS, Response, exchange

pytestmark = [
    pytest.mark.needs("debootstrap", "iproute2"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a machine"),
]

HOME_LINK = '<a href="/">Go to the home page</a>'  # in each page of bulwark/error.html
SECRET = "eleven-purple-tractors-sing"
MEBIBYTE = 1024 * 1024
# Each line of the access log has these, whichever proxy writes it.
LOGGED = [
    *(
        "timestamp",
        "event",
        "request_id",
        "remote_addr",
        "network",
        "host",
        "tls",
        "method",
    ),
    *("path", "protocol", "status", "bytes", "seconds", "limited"),
    *("upstream_status", "upstream_seconds"),
]

# The team's half: a page that tells what reached it, one that fails, and files.
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
# Before the proxy is another one, which says in X-Client who asks.
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
# Without it, no address counts that lies outside 2000::/3.
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

    def say(self, *lines: str | bytes, port: int = 443) -> bytes:
        """Send lines as they are; return all that comes back."""
        sent = b"\r\n".join(x.encode() if isinstance(x, str) else x for x in lines)
        with self.tls() if port == 443 else self.plug(port) as stream:
            stream.sendall(sent + b"\r\n\r\n")
            said = b""
            while True:
                try:
                    more = stream.recv(65536)
                except ConnectionResetError:
                    return said
                if not more:
                    return said
                said += more

    def logged(self, request_id: str | None) -> dict[str, Any]:
        """Return the line that the proxy wrote about a request, when it is there."""

        def look() -> dict[str, Any] | None:
            lines = map(json.loads, self.path(self.log).read_text().splitlines())
            return next((x for x in lines if x["request_id"] == request_id), None)

        return eventually(look)

    def apply(self) -> subprocess.CompletedProcess[str]:
        return self.deploy(f"{self.proxy}/apply")


PLACES = [(proxy, suite) for suite in ("trixie", "bookworm") for proxy in TEAM]


@pytest.fixture(scope="module", params=PLACES, ids="-".join)
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    proxy, suite = request.param
    with Site(installed(tmp_path_factory, suite, proxy), proxy, suite) as site:
        current = site.path(f"{HOME}/current")
        for file in (ROOT / "template/deploy" / proxy).glob("*.jinja"):
            made = Template(file.read_text(), undefined=StrictUndefined)
            text = made.render(project_slug=NAME, domain=DOMAIN, aliases=[ALIAS])
            (current / "deploy" / proxy / file.stem).write_text(text)
        answers = (current / "service.toml").read_text()
        named = answers.replace("aliases = []", f'aliases = ["{ALIAS}"]')
        (current / "service.toml").write_text(named)
        team = TEAM[proxy] % {"name": NAME, "public": f"{HOME}/current/public"}
        (current / f"app/{proxy}/test.conf").write_text(team)
        if proxy == "apache":
            site.run("a2enmod", "-q", "remoteip")
        with (current / "app/views.py").open("a") as file:
            file.write(VIEWS)
        site.run("systemctl", "restart", f"{NAME}@{site.current}")
        site.path(LIVE).mkdir(parents=True)
        certify(
            DOMAIN, *(site.path(f"{LIVE}/{n}.pem") for n in ("fullchain", "privkey"))
        )
        assert site.apply().returncode == 0
        # After a mere reload the old workers answer for a moment more.
        site.run("systemctl", "restart", site.unit)
        yield site


# --- Which requests reach the service -------------------------------------------------


@pytest.mark.parametrize("path", ["/prices?page=2", "/a%2Fb%3Fc?d=%22&e=%0A", "/"])
def test_http_leads_to_https(site: Site, path: str) -> None:
    answer = site.get(path, port=80)
    assert answer.status == 308
    assert answer.header("Location") == f"https://{DOMAIN}{path}"
    # RFC 6797, 7.2: never over a connection that somebody may have tampered with.
    without = {"strict-transport-security"}
    assert answer.count_security() == Counter(SECURITY_HEADERS - without)


REFUSED_WITHOUT_TLS: list[dict[str, Any]] = [
    *({"method": method} for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS")),
    {"Authorization": "Bearer token"},
    {"Proxy_Authorization": "Basic dG9rZW4="},
]


@pytest.mark.parametrize("request_", REFUSED_WITHOUT_TLS, ids=str)
@pytest.mark.parametrize("name", [DOMAIN, ALIAS])
def test_what_must_not_travel_in_the_clear_is_not_led_to_https(
    site: Site, name: str, request_: dict[str, Any]
) -> None:
    """A client that is redirected sends it again, and nobody learns of the mistake."""
    answer = site.get("/account", port=80, name=name, **request_)
    assert answer.status == 403
    assert answer.header("Location") is None
    without = {"strict-transport-security"}
    assert answer.count_security() == Counter(SECURITY_HEADERS - without)
    assert answer.header("Content-Type") == "text/html; charset=utf-8"
    assert HOME_LINK in answer.body


@pytest.mark.parametrize("port", [80, 443])
def test_an_alias_leads_to_the_domain(site: Site, port: int) -> None:
    answer = site.get("/prices?page=2", port=port, name=ALIAS)
    assert answer.status == 308
    assert answer.header("Location") == f"https://{DOMAIN}/prices?page=2"


def test_certbot_can_show_that_the_domain_is_ours(site: Site) -> None:
    proof = "/.well-known/acme-challenge/token"
    site.write(f"/var/www/letsencrypt{proof}", "proof")
    answer = site.get(proof, port=80)
    assert (answer.status, answer.body) == (200, "proof")


@pytest.mark.parametrize("host", ["evil.example", f"no.{DOMAIN}", "10.0.0.1", ""])
def test_an_unknown_host_learns_nothing_without_tls(site: Site, host: str) -> None:
    said = site.say("GET / HTTP/1.1", f"Host: {host}", "Connection: close", port=80)
    assert DOMAIN.encode() not in said
    if site.proxy == "nginx":
        assert said == b"" or said.startswith(b"HTTP/1.1 400")
    else:
        # Apache can't hang up.
        assert re.match(rb"HTTP/1.1 (421|400) ", said)
        assert said.partition(b"\r\n\r\n")[2].strip() == b"" or host == ""


@pytest.mark.parametrize("name", ["evil.example", f"no.{DOMAIN}", None])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_an_unknown_name_gets_no_certificate(
    site: Site, name: str | None, version: ssl.TLSVersion
) -> None:
    only: dict[str, Any] = {"minimum_version": version, "maximum_version": version}
    with pytest.raises(ssl.SSLError, match=r"UNRECOGNIZED_NAME|HANDSHAKE_FAIL|VERSION"):
        site.tls(name, verify_mode=ssl.CERT_NONE, **only)


@pytest.mark.parametrize("host", ["evil.example", f"{DOMAIN}.evil.example"])
def test_a_host_other_than_the_one_in_tls_is_misdirected(site: Site, host: str) -> None:
    assert site.get("/", Host=host).status == 421


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_target_with_another_host_is_not_served(site: Site, scheme: str) -> None:
    line = f"GET {scheme}://evil.example/ HTTP/1.1"
    said = site.say(line, f"Host: {DOMAIN}", "Connection: close")
    assert said.startswith(b"HTTP/1.1 421")
    assert b"evil" not in said


LIES: list[dict[str, Any]] = [
    {"X_Forwarded_Host": "evil.example", "X_Forwarded_Server": "evil.example"},
    {"X_Forwarded_For": "203.0.113.9", "X_Real_IP": "203.0.113.9"},
    {"X_Forwarded_Proto": "http", "X_Forwarded_Port": "81", "X_Forwarded_Prefix": "/x"},
    {"Forwarded": "for=203.0.113.9;host=evil.example;proto=http"},
    {"X_Original_URL": "/account", "X_Rewrite_URL": "/account"},
    {"Proxy": "http://evil.example"},
    # A header that Connection names is for the next hop alone, and is taken out there.
    {"Connection": "close, X-Forwarded-Proto, X-Forwarded-For, X-Request-ID, Host"},
]


@pytest.mark.parametrize("lie", LIES, ids=" ".join)
def test_the_service_sees_who_really_asks(site: Site, lie: dict[str, Any]) -> None:
    answer = site.get("/test/seen", **lie)
    seen = json.loads(answer.body)
    assert (seen["address"], seen["secure"]) == (site.visitor, True)
    assert seen["host"] == DOMAIN
    assert seen["headers"]["X-Request-Id"] == answer.header("X-Request-ID")
    assert "203.0.113.9" not in answer.body
    assert "evil" not in answer.body
    for port in (80, 443):
        location = site.get("/account", port=port, **lie).header("Location")
        assert location
        assert location.startswith(("/login", f"https://{DOMAIN}/"))


@pytest.mark.parametrize("name", ["Script_Name", "X_Forwarded_For", "X_Request_Id"])
def test_a_header_that_passes_for_another_is_dropped(site: Site, name: str) -> None:
    lines = (f"Host: {DOMAIN}", "Connection: close", f"{name}: /evil")
    said = site.say("GET /test/seen HTTP/1.1", *lines)
    assert said.startswith(b"HTTP/1.1 200")
    assert b"/evil" not in said


@pytest.mark.parametrize(
    "path", ["/test/%73een?a=%2F&b=%22c", "/test//seen", "/%2e%2e/"]
)
def test_the_service_gets_the_path_as_it_was_written(site: Site, path: str) -> None:
    answer = site.get(path)
    if answer.status == 200:
        assert json.loads(answer.body)["uri"] == path
    else:
        assert answer.status in (308, 400, 404)


@pytest.mark.parametrize("method", ["TRACE", "CONNECT"])
def test_methods_that_echo_or_tunnel_are_refused(site: Site, method: str) -> None:
    assert site.get("/", method).status in (400, 405)


def test_a_body_may_have_one_mebibyte(site: Site) -> None:
    answer = site.get("/test/seen", "POST", b"x" * MEBIBYTE)
    assert json.loads(answer.body)["body"] == MEBIBYTE
    for target in ("/test/seen", "/static/app.css"):
        assert site.get(target, "POST", b"x" * (MEBIBYTE + 1)).status == 413


def test_a_view_that_declares_it_takes_a_larger_body(site: Site) -> None:
    answer = site.get("/test/large", "POST", b"x" * 2 * MEBIBYTE)
    assert json.loads(answer.body)["body"] == 2 * MEBIBYTE
    assert site.get("/test/large", "POST", b"x" * (2 * MEBIBYTE + 1)).status == 413


def test_a_body_of_unknown_length_has_a_limit_too(site: Site) -> None:
    chunks = (b"x" * 1024 for _ in range(1025))
    # 411: nothing in Apache counts it, so it has to say how long it is.
    wanted = {"nginx": 413, "apache": 411}[site.proxy]
    assert site.get("/test/seen", "POST", chunks).status == wanted


HEAD = f"POST /test/seen HTTP/1.1\r\nHost: {DOMAIN}"
INNER = f"GET /healthz HTTP/1.1\r\nHost: {DOMAIN}"
SMUGGLED = {
    "a length and chunks": "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n"
    f"0\r\n\r\n{INNER}",
    "chunks and a length": "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n"
    f"5c\r\n{INNER}\r\n\r\n0",
    "two lengths": f"Content-Length: 0\r\nContent-Length: 44\r\n\r\n{INNER}",
    "two lengths in a line": f"Content-Length: 0, 44\r\n\r\n{INNER}",
    "a length with a sign": f"Content-Length: +0\r\n\r\n{INNER}",
    "an unknown coding": f"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{INNER}",
    "two codings": "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n"
    f"0\r\n\r\n{INNER}",
    "a blank before the colon": f"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n{INNER}",
    "a folded line": f"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n{INNER}",
    "a null": f"Transfer-Encoding: \0chunked\r\n\r\n0\r\n\r\n{INNER}",
}


@pytest.mark.parametrize("how", SMUGGLED)
def test_a_request_in_a_request_is_refused(site: Site, how: str) -> None:
    said = site.say(f"{HEAD}\r\n{SMUGGLED[how]}")
    # 411: see above. 501: RFC 9112, 6.1.
    assert re.match(rb"HTTP/1.1 (400|411|501) ", said), said
    assert said.count(b"HTTP/1.1 ") == 1


# gunicorn is the same everywhere.
@pytest.mark.parametrize("site", PLACES[:1], ids="-".join, indirect=True)
@pytest.mark.parametrize("how", SMUGGLED)
def test_gunicorn_itself_refuses_a_request_in_a_request(site: Site, how: str) -> None:
    said = b""
    with socket.socket(socket.AF_UNIX) as stream:
        stream.settimeout(PATIENCE)
        stream.connect(str(site.path(f"/run/{NAME}/{site.current}/web.sock")))
        stream.sendall(f"{HEAD}\r\n{SMUGGLED[how]}\r\n\r\n".encode())
        while more := stream.recv(65536):
            said += more
    assert re.match(rb"HTTP/1.1 (400|501) ", said), said
    assert said.count(b"HTTP/1.1 ") == 1


# --- TLS ------------------------------------------------------------------------------


def test_tls_is_1_2_or_1_3_and_speaks_http_2(site: Site) -> None:
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        with site.tls(minimum_version=version, maximum_version=version) as stream:
            assert stream.selected_alpn_protocol() == "h2"
            assert stream.version() == version.name.replace("_", ".")


@pytest.mark.needs("openssl")
@pytest.mark.parametrize("version", ["-tls1", "-tls1_1"])
def test_older_tls_is_refused(site: Site, version: str) -> None:
    said = subprocess.run(
        [
            *("openssl", "s_client", version, "-cipher", "ALL:@SECLEVEL=0"),
            *("-servername", DOMAIN, "-connect", f"{site.address}:443"),
        ],
        input=b"",
        capture_output=True,
        check=False,
    )
    assert b"alert protocol version" in said.stderr


def curl(site: Site, *arguments: str, path: str = "/healthz") -> list[str]:
    """Ask with the machine's own curl, which speaks what its OpenSSL can."""
    place = ("--resolve", f"{DOMAIN}:443:127.0.0.1", f"https://{DOMAIN}{path}")
    trust = ("--cacert", f"{LIVE}/fullchain.pem", "--silent", "--show-error")
    return site.run("curl", *trust, *arguments, *place).splitlines()


def test_keys_are_exchanged_as_quantum_computers_need_it(site: Site) -> None:
    post_quantum = ("--curves", "X25519MLKEM768")
    if site.suite == "trixie":
        assert curl(site, *post_quantum) == ['{"status":"ok"}']
    assert curl(site, "--curves", "X25519") == ['{"status":"ok"}']


def test_a_page_comes_over_each_version_of_http(site: Site) -> None:
    wanted = {"--http1.1": "1.1", "--http2": "2"}
    if (site.proxy, site.suite) == ("nginx", "trixie"):
        wanted["--http3-only"] = "3"
    for option, version in wanted.items():
        told = ("-o", "/dev/null", "-w", "%{http_version} %{http_code} %header{server}")
        server = {"nginx": "nginx", "apache": "Apache"}[site.proxy]
        assert curl(site, option, *told, path="/") == [f"{version} 200 {server}"]


# --- What comes back ------------------------------------------------------------------

ANSWERED: dict[str, tuple[set[int], dict[str, Any]]] = {
    "a page": ({200}, {"target": "/"}),
    "JSON": ({200}, {"target": "/healthz"}),
    "a style sheet": ({200}, {"target": "/static/app.css"}),
    "a style sheet that is not there": ({404}, {"target": "/static/none.css"}),
    "a folder": ({403, 404}, {"target": "/static/"}),
    "a redirect": ({302}, {"target": "/account"}),
    "nothing there": ({404}, {"target": "/nothing"}),
    "a page of the proxy, as such": ({404}, {"target": "/errors/503.html"}),
    "a form without a token": ({400}, {"target": "/login", "method": "POST"}),
    "a wrong method": ({405}, {"target": "/healthz", "method": "DELETE"}),
    "a fault": ({500}, {"target": "/test/broken"}),
    "TRACE": ({405}, {"target": "/", "method": "TRACE"}),
    "too large": (
        {413},
        {"target": "/", "method": "PUT", "body": b"x" * 2 * MEBIBYTE},
    ),
    "too many headers": ({431}, {"target": "/", **{f"X_{n}": "x" for n in range(70)}}),
    "a long header": ({400}, {"target": "/", "X_Long": "x" * 20_000}),
    "a long address": ({414}, {"target": f"/{'x' * 20_000}"}),
    "the team's file": ({200}, {"target": "/test/file"}),
    "the team's header": ({204}, {"target": "/test/own-header"}),
}


@pytest.mark.parametrize("what", ANSWERED)
def test_every_answer_carries_each_security_header_once(site: Site, what: str) -> None:
    statuses, request = ANSWERED[what]
    answer = site.get(**request)
    assert answer.status in statuses, answer.body
    assert answer.count_security() == Counter(SECURITY_HEADERS)


@pytest.mark.parametrize("what", ANSWERED)
def test_no_answer_names_a_version_or_what_is_behind(site: Site, what: str) -> None:
    answer = site.get(**ANSWERED[what][1])
    assert answer.header("Server") == {"nginx": "nginx", "apache": "Apache"}[site.proxy]
    assert answer.header("X-Powered-By") is None
    said = str(answer.headers).lower() + answer.body.lower()
    hidden = ("nginx/", "apache/", "debian", "openssl", "gunicorn", "python/")
    for word in (*hidden, "werkzeug", "traceback", NAME, SECRET):
        assert word not in said


def test_the_proxy_says_the_same_as_the_service(site: Site) -> None:
    by_proxy, by_service = (site.get(p).security for p in ("/test/file", "/"))
    for header in ("content-security-policy", "x-request-id"):
        by_proxy.pop(header)
        by_service.pop(header)
    assert by_proxy == by_service


REFUSED_BY_PROXY: dict[str, tuple[set[int], list[str]]] = {
    "a folder": ({403, 404}, ["GET /static/ HTTP/1.1"]),
    "a form for a file": (
        {405},
        ["POST /static/app.css HTTP/1.1", "Content-Length: 0"],
    ),
    "TRACE": ({405}, ["TRACE / HTTP/1.1"]),
    "too large": ({413}, ["POST / HTTP/1.1", "Content-Length: 2000000"]),
    "a long address": ({414}, [f"GET /{'x' * 20_000} HTTP/1.1"]),
    "a long header": ({400}, ["GET / HTTP/1.1", f"X: {'x' * 20_000}"]),
    "many long headers": (
        {200, 400},  # Apache bounds their number
        ["GET / HTTP/1.1", *(f"X-{n}: {'x' * 7000}" for n in range(20))],
    ),
    "a header that is none": ({400}, ["GET / HTTP/1.1", "X: \0"]),
    "another host": ({421}, ["GET http://evil.example/ HTTP/1.1"]),
    "an unknown coding": ({400, 411, 501}, ["GET / HTTP/1.1", "Transfer-Encoding: x"]),
    "an unknown expectation": ({200, 417}, ["GET / HTTP/1.1", "Expect: x"]),
    "a range beyond the end": (
        {416},
        ["GET /static/app.css HTTP/1.1", "Range: bytes=999999-"],
    ),
    "a condition that fails": (
        {412},
        ["GET /static/app.css HTTP/1.1", 'If-Match: "x"'],
    ),
    "HTTP 9": ({200, 400, 505}, ["GET / HTTP/9.9"]),  # Apache takes it for HTTP/1.1
}
# What Apache can't read is refused before it looks whose it is.
UNREADABLE = (
    *("a long address", "a long header", "a header that is none", "an unknown coding"),
)


@pytest.mark.parametrize("what", REFUSED_BY_PROXY)
def test_a_refusal_of_the_proxy_is_a_page_of_the_service(site: Site, what: str) -> None:
    statuses, lines = REFUSED_BY_PROXY[what]
    line, *more = lines
    said = site.say(line, f"Host: {DOMAIN}", "Connection: close", *more)
    head, _, body = said.decode().partition("\r\n\r\n")
    status = int(head.split()[1])
    assert status in statuses, said
    if status == 200:
        return
    if what == "a condition that fails" and site.proxy == "apache":
        assert not body  # for the page does not meet the condition either
        return
    # A host of somebody else's has no page.
    others = {"nginx": ("another host",), "apache": UNREADABLE}
    plain = what in others[site.proxy]
    kind = "text/plain" if plain else "text/html"
    assert head.lower().count(f"content-type: {kind}; charset=utf-8") == 1, head
    sent = Counter(line.partition(":")[0].lower() for line in head.splitlines()[1:])
    assert {n: sent[n] for n in SECURITY_HEADERS} == dict.fromkeys(SECURITY_HEADERS, 1)
    assert plain or HOME_LINK in body, body
    assert not plain or "<" not in body, body


@pytest.mark.parametrize(
    ("file", "kind"),
    [
        ("app.css", "text/css"),
        ("bulwark/passkeys.js", "javascript"),
        ("favicon.svg", "image/svg+xml"),
        ("test.txt", "text/plain"),
    ],
)
@pytest.mark.parametrize("accepted", ["identity", "gzip"])
def test_a_file_of_text_names_its_charset(
    site: Site, file: str, kind: str, accepted: str
) -> None:
    site.write(f"{HOME}/current/public/static/test.txt", "caf\u00e9")
    answer = site.get(f"/static/{file}", Accept_Encoding=accepted)
    assert answer.status == 200
    named = answer.header("Content-Type") or ""
    assert kind in named
    assert named.endswith("; charset=utf-8")


def test_cookies_are_bound_to_the_host_and_out_of_reach(site: Site) -> None:
    cookies = site.get("/login").headers.get_all("Set-Cookie", [])
    assert cookies
    for cookie in cookies:
        name, *attributes = re.split(r"; ?", cookie)
        assert name.startswith("__Host-")
        assert {"Secure", "HttpOnly", "Path=/", "SameSite=Lax"} <= set(attributes)
        assert not [a for a in attributes if a.startswith("Domain")]


def test_a_page_is_never_compressed_and_a_file_was_before(site: Site) -> None:
    for accepted in ("gzip", "br, gzip;q=0.5", "*"):
        for page in ("/", "/healthz", "/nothing", "/static/none.css"):
            answer = site.get(page, Accept_Encoding=accepted)
            assert answer.header("Content-Encoding") is None, page
    plain = site.get("/static/app.css")
    packed = site.get("/static/app.css", Accept_Encoding="gzip, br")
    assert plain.header("Content-Encoding") is None
    assert packed.header("Content-Encoding") == "gzip"
    for answer in (plain, packed):
        assert answer.header("Content-Type") == "text/css; charset=utf-8"
        assert answer.header("Vary") == "Accept-Encoding"
    assert (
        curl(site, "--compressed", path="/static/app.css")[0]
        == (plain.body.splitlines()[0])
    )


def test_what_was_fetched_is_never_asked_for_again(site: Site) -> None:
    style = re.search(r'href="(/static/[^"]+\.css\?v=\w+)"', site.get("/").body)
    assert style
    answer = site.get(style[1])
    assert answer.header("Cache-Control") == "public, max-age=31536000, immutable"
    for target in ("/static/app.css", "/static/app.css?v=1", f"{style[1]}/../none.css"):
        said = site.get(target).header("Cache-Control") or "no-cache"
        assert "no-cache" in said


def test_no_tag_tells_where_a_file_lies_on_the_disk(site: Site) -> None:
    tag = site.get("/static/app.css").header("ETag")
    assert tag
    number = site.path(f"{HOME}/current/public/static/app.css").stat().st_ino
    assert f"{number:x}" not in tag.strip('"').split("-")


# --- When the service is away, or at work ---------------------------------------------


def test_an_absent_service_is_excused(site: Site) -> None:
    unit = f"{NAME}@{site.current}"
    site.run("systemctl", "stop", f"{unit}.socket", f"{unit}.service")
    try:
        large = ("/test/large", "POST", b"x" * 2 * MEBIBYTE)
        for asked in (("/login",), ("/login", "POST"), ("/login", "DELETE"), large):
            answer = site.get(*asked)
            assert answer.status == 503
            assert answer.header("Retry-After") == "5"
            assert answer.header("Content-Type") == "text/html; charset=utf-8"
            assert "back in a moment" in answer.body
            assert answer.count_security() == Counter(SECURITY_HEADERS)
        assert site.get("/static/app.css").status == 200
    finally:
        site.run("systemctl", "start", f"{unit}.socket", f"{unit}.service")
    # Asked again at once, not after a pause for a service that was away.
    assert site.get("/healthz").status == 200


def test_a_switch_shows_that_the_team_is_at_work(site: Site) -> None:
    switch = site.path(f"/run/{NAME}.maintenance")
    switch.touch()
    try:
        answer = site.get("/")
        assert answer.status == 503
        assert answer.header("Retry-After") == "5"
        assert "back in a moment" in answer.body
        assert answer.count_security() == Counter(SECURITY_HEADERS)
        style = re.search(r'href="(/static/[^"]+)"', answer.body)
        assert style
        assert site.get(style[1]).status == 200
    finally:
        switch.unlink()
    assert site.get("/").status == 200


# --- Too much, too slow ---------------------------------------------------------------


def test_a_flood_of_tries_is_refused_and_others_go_on(site: Site) -> None:
    flooder = site.neighbour(101)
    answers = [site.get("/login", "POST", source=flooder) for _ in range(30)]
    refused = [answer for answer in answers if answer.status == 429]
    assert len(refused) >= 5
    assert [a.status for a in answers[:20]] == [400] * 20
    for answer in refused:
        assert answer.header("Retry-After") == "5"
        assert "few seconds" in answer.body
        assert answer.count_security() == Counter(SECURITY_HEADERS)
    assert site.logged(refused[-1].header("X-Request-ID"))["limited"] == "requests"
    # Only of what floods are made of, and only from there.
    assert site.get("/login", source=flooder).status == 200
    assert site.get("/login", "POST", source=site.neighbour(102)).status == 400


def test_a_flood_of_requests_is_refused(site: Site) -> None:
    flooder = site.neighbour(103)
    statuses: Counter[int] = Counter()
    with site.tls(source=flooder) as stream:
        connection = http.client.HTTPConnection(DOMAIN)
        connection.sock = stream
        begin = time.monotonic()
        # 200 at once, and 50 a second.
        while statuses[429] < 10:
            connection.request("GET", "/static/app.css", headers={"Host": DOMAIN})
            response = connection.getresponse()
            response.read()
            statuses[response.status] += 1
            if response.will_close:
                connection.close()
                connection.sock = site.tls(source=flooder)
            assert time.monotonic() < begin + PATIENCE
    assert 200 <= statuses[200] <= 210 + 50 * (time.monotonic() - begin)


class Slow(NamedTuple):
    """One who began to speak, and goes on as slowly as he can."""

    stream: socket.socket
    drips: bool


@pytest.mark.parametrize("each", [25, 99])
def test_slow_bodies_of_twelve_networks_hold_up_nobody_else(
    site: Site, each: int, record_property: Callable[[str, object], None]
) -> None:
    if site.proxy == "apache" and each > 25:
        pytest.skip("it has 1,024 threads, and ends each slow body after ten seconds")
    with Asker(site) as asker, SlowBodies(site, 12, each) as bodies:
        bodies.begun.wait(PATIENCE)
        time.sleep(15)
        left = bodies.count_held()
    held = f"{left} of {12 * each} bodies held"
    failed = f"{len(asker.failed)} of {len(asker.waits)} others failed"
    where = f"{site.proxy} on {site.suite}"
    record_property("p99", f"{where}: {asker.p99:.3f} s, {held}, {failed}")
    # nginx knows no slowest rate of a body; what a network may have at once is bounded.
    assert left <= {"nginx": 12 * 20, "apache": 0}[site.proxy]
    assert asker.failed == []
    assert asker.p99 < 1


class SlowBodies:
    """From each of some networks many begin to send a body, and go on byte by byte."""

    def __init__(self, site: Site, networks: int, each: int) -> None:
        self.site, self.each = site, each
        self.begun = threading.Barrier(networks + 1)
        self.streams: list[socket.socket] = []
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._send, args=[site.neighbour(120 + number)])
            for number in range(networks)
        ]

    def __enter__(self) -> "SlowBodies":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.begun.abort()
        for thread in self._threads:
            thread.join()
        for stream in self.streams:
            stream.close()

    def count_held(self) -> int:
        """Return how many are neither closed nor answered."""
        return len([stream for stream in self.streams if is_silent(stream)])

    def _send(self, source: str) -> None:
        head = f"POST /test/seen HTTP/1.1\r\nHost: {DOMAIN}\r\nContent-Length: 900000"
        mine: list[socket.socket] = []
        dripped = time.monotonic()
        while not self._over.wait(0 if len(mine) < self.each else 0.5):
            if len(mine) < self.each:
                # One that is refused is no better off than one that is closed.
                with suppress(OSError):
                    stream = self.site.tls(source=source)
                    stream.sendall(f"{head}\r\n\r\n".encode())
                    stream.setblocking(False)
                    self.streams.append(stream)
                    mine.append(stream)
                if len(mine) == self.each:
                    threading.Thread(target=self._arrive).start()
            if time.monotonic() > dripped + 3:
                dripped = time.monotonic()
                for slow in mine:
                    with suppress(OSError):
                        slow.send(b"x")

    def _arrive(self) -> None:
        with suppress(threading.BrokenBarrierError):
            self.begun.wait()


def is_silent(stream: socket.socket) -> bool:
    """Tell whether the other end has neither answered nor closed."""
    try:
        stream.recv(1)
    except (BlockingIOError, ssl.SSLWantReadError):
        return True
    except OSError:
        return False
    return False


class Asker:
    """Asks all the time, with a new connection each time; notes how long it takes."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.waits: list[float] = []
        self.failed: list[str] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self) -> "Asker":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    @property
    def p99(self) -> float:
        """The seconds within which 99 of 100 requests were answered."""
        return statistics.quantiles(self.waits, n=100)[98]

    def _ask(self) -> None:
        while not self._over.wait(0.05):
            begin = time.monotonic()
            try:
                status = self.site.get("/healthz").status
                if status != 200:
                    self.failed.append(str(status))
            except OSError as error:
                self.failed.append(repr(error))
            self.waits.append(time.monotonic() - begin)


def slow_clients(site: Site, source: str, each: int) -> Iterator[Slow]:
    body = b"x" * 100_000
    head = f"POST /test/seen HTTP/1.1\r\nHost: {DOMAIN}\r\n".encode()
    for _ in range(each):
        hello = site.plug(source=source)
        hello.sendall(b"\x16\x03\x01")
        yield Slow(hello, drips=False)
        headers = site.tls(source=source)
        headers.sendall(head + b"X: ")
        yield Slow(headers, drips=True)
        unsent = site.tls(source=source)
        unsent.sendall(head + b"Content-Length: 900000\r\n\r\n" + body)
        yield Slow(unsent, drips=False)


def test_slow_clients_are_sent_away_while_others_are_answered(
    site: Site, record_property: Callable[[str, object], None]
) -> None:
    waits: list[float] = []
    over = threading.Event()

    def ask() -> None:
        begin = time.monotonic()
        assert site.get("/healthz").status == 200
        waits.append(time.monotonic() - begin)
        over.wait(0.05)

    def ask_on() -> None:
        while not over.is_set():
            ask()

    for _ in range(40):
        ask()
    usual = max(waits)
    waits.clear()
    clients: list[Slow] = []
    asker = threading.Thread(target=ask_on)
    asker.start()
    try:
        for number in range(4):
            clients += slow_clients(site, site.neighbour(110 + number), each=25)
        held, late = wait_until_closed(clients)
    finally:
        over.set()
        asker.join()
        for client in clients:
            client.stream.close()
    assert len(held) == 300
    assert max(held) < 12 + late
    p99 = statistics.quantiles(waits, n=100)[98]
    where = f"{site.proxy} on {site.suite}"
    told = f"{p99:.3f} s, usually {usual:.3f} s, held {max(held):.1f} s"
    record_property("p99", f"{where}: {told}")
    # On a machine that is busy otherwise, all is slower.
    assert p99 < max(1, 5 * usual)


def wait_until_closed(clients: list[Slow]) -> tuple[list[float], float]:
    """Return when each was closed, since all are there; some send a byte a second.

    The second is the longest that this machine was too busy to look.
    """
    held: list[float] = []
    late = 0.0
    with selectors.DefaultSelector() as selector:
        for client in clients:
            client.stream.setblocking(False)
            selector.register(client.stream, selectors.EVENT_READ, client)
        begin = drip = looked = time.monotonic()
        while selector.get_map() and time.monotonic() < begin + 30 + late:
            for key, _ in selector.select(0.1):
                if is_closed(key.data.stream):
                    held.append(time.monotonic() - begin)
                    selector.unregister(key.fileobj)
            if time.monotonic() > drip + 1:
                drip = time.monotonic()
                for key in list(selector.get_map().values()):
                    if key.data.drips:
                        # The next look finds out that it is closed.
                        with suppress(OSError):
                            key.data.stream.send(b"x")
            late = max(late, time.monotonic() - looked - 0.1)
            looked = time.monotonic()
    return held, late


def is_closed(stream: socket.socket) -> bool:
    try:
        return stream.recv(65536) == b""
    except (BlockingIOError, ssl.SSLWantReadError):
        return False
    except OSError:
        return True


# --- Logs -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        *("192.0.2.7", "2001:db8::1", "2001:db8:1::1", "2001:db8:1:2::1"),
        *("2001:db8:1:2:3:4:5:6", "2001:db8:1:0:3:4:5:6", "2001:0:0:4:5:6:7:8"),
        *("64:ff9b::198.51.100.7", "64:ff9b:1:2::1"),
    ],
)
def test_the_log_names_the_network_that_is_counted(site: Site, address: str) -> None:
    answer = site.get("/static/app.css", X_Client=address)
    line = site.logged(answer.header("X-Request-ID"))
    assert line["remote_addr"] == str(ip_address(address))
    known = ip_network((address, 64), strict=False) if "2001:" in address else address
    assert ip_network(line["network"]) == ip_network(known)


def test_one_request_id_joins_all_logs(site: Site) -> None:
    claimed = "a" * 32
    answer = site.get("/test/seen?token=secret", X_Request_ID=claimed)
    request_id = answer.header("X-Request-ID")
    assert request_id
    assert re.fullmatch("[0-9a-f]{32}", request_id)
    assert request_id != claimed
    by_proxy = site.logged(request_id)
    wanted = {"event": "access", "remote_addr": site.visitor, "host": DOMAIN}
    wanted |= {"method": "GET", "path": "/test/seen", "protocol": "HTTP/1.1"}
    wanted |= {"status": "200", "upstream_status": "200", "tls": "TLSv1.3"}
    assert {key: by_proxy[key] for key in wanted} == wanted
    assert 0 < by_proxy["seconds"] < 10
    assert by_proxy["bytes"] > len(answer.body)
    journal = site.journal("-u", f"{NAME}@{site.current}")
    assert f'"request_id": "{request_id}"' in journal


TOKEN = "WyI3YWZkYTE4ZGI5OTk0ZmU0YmRm.Xy"


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (f"/reset/{TOKEN}", "/reset/..."),
        (f"/?token={TOKEN}", "/"),
        (f"/users/jo@example.com/{TOKEN}", "/users/..."),
        (f"/{TOKEN}", "/..."),
        (f"/a/b/{TOKEN}/c?d", "/a/b/..."),
        ("/caf%C3%A9", "/..."),
        ("/plain/page", "/plain/page"),
    ],
)
def test_a_path_is_logged_up_to_what_looks_like_a_token(
    site: Site, target: str, path: str
) -> None:
    said = site.say(
        f"GET {target} HTTP/1.1",
        f"Host: {DOMAIN}",
        "Connection: close",
        f"Referer: https://{DOMAIN}/{TOKEN}",
    )
    found = re.search(rb"(?i)x-request-id: (\w+)", said)
    assert found, said
    assert site.logged(found[1].decode())["path"] == path
    for log in site.path(f"/var/log/{site.unit}").glob("*.log"):
        assert TOKEN not in log.read_text()
        assert "jo@example.com" not in log.read_text()


ODD = [
    b'GET /"\\\x01\x7f HTTP/1.1',
    b"GET /\xff\xfe\xc3 HTTP/1.1",
    b'G"E\\T /odd HTTP/1.1',
    b"G\xffT /odd HTTP/1.1",
    b"\x16\x03\x01\x02",
    b'GET /odd "HTTP"/\\1.1',
    b"GET /odd HTTP/1.1\xff",
    b"GET /odd HTTP/9.9",
    b"GET //odd//%22%0a%00\t HTTP/1.1",
    b"GET odd HTTP/1.1",
    b"OPTIONS * HTTP/1.1",
    b"GET /odd",
    b"",
]


def test_whatever_is_asked_a_line_of_the_log_is_one_json_object(site: Site) -> None:
    for line in ODD:
        for host in (DOMAIN, f'{DOMAIN}"\\\xff', "x" * 9000):
            for port in (80, 443):
                named = b"Host: " + host.encode("latin-1")
                site.say(line, named, b"Connection: close", port=port)
    site.logged(site.get("/healthz").header("X-Request-ID"))
    lines = site.path(site.log).read_bytes().splitlines()
    assert len(lines) > 10
    for line in lines:
        assert list(json.loads(line.decode())) == LOGGED


# --- Changing the configuration -------------------------------------------------------


@pytest.fixture
def mistake(site: Site) -> Iterator[Path]:
    """Return a file of the team's that ought not to be there."""
    path = site.path(f"{HOME}/current/app/{site.proxy}/mistake.conf")
    yield path
    path.unlink(missing_ok=True)
    assert site.apply().returncode == 0


@pytest.mark.parametrize("kind", ["syntax", "log", "certificate"])
def test_a_mistake_of_the_team_is_refused_and_the_old_site_serves_on(
    site: Site, mistake: Path, kind: str
) -> None:
    nowhere = "/nowhere/at/all"
    mistake.write_text(
        {
            "nginx-syntax": "This is no directive;\n",
            "nginx-log": f"access_log {nowhere};\n",
            "nginx-certificate": f"ssl_certificate {nowhere};\n",
            "apache-syntax": "This is no directive\n",
            "apache-log": f"CustomLog {nowhere} common\n",
            "apache-certificate": f"SSLCACertificateFile {nowhere}\n",
        }[f"{site.proxy}-{kind}"]
    )
    done = site.apply()
    assert done.returncode == 1
    assert "mistake.conf" in done.stderr or nowhere in done.stderr
    assert "still serves" in done.stderr
    assert site.get("/healthz").status == 200
    # What a restart would find is the old site, too.
    site.run({"nginx": "nginx", "apache": "apachectl"}[site.proxy], "-t")
    assert len(list(site.path(f"/etc/{site.unit}").glob(f"{NAME}.*"))) == 1


def test_a_key_of_another_certificate_is_refused(site: Site) -> None:
    key = site.path(f"{LIVE}/privkey.pem")
    right = key.read_text()
    try:
        site.run(
            "openssl",
            "ecparam",
            "-genkey",
            "-name",
            "prime256v1",
            "-out",
            f"{LIVE}/privkey.pem",
        )
        assert site.apply().returncode == 1
        assert site.get("/healthz").status == 200
    finally:
        key.write_text(right)
    assert site.apply().returncode == 0


def test_a_reload_drops_no_request(site: Site) -> None:
    with Load(site, visitors=4) as load:
        for _ in range(3):
            load.wait_for(100)
            assert site.apply().returncode == 0
        load.wait_for(100)
    assert load.dropped == []
    assert load.answered >= 400


def test_the_proxy_follows_the_link_to_the_release(site: Site) -> None:
    """What is at the socket answers, as soon as the link leads there."""
    current = site.path(f"{HOME}/current")
    serving = current.readlink()
    nowhere = current.with_name("releases") / "nowhere"
    nowhere.mkdir()
    try:
        site.run("ln", "-sfn", "releases/nowhere", f"{HOME}/current")
        assert site.get("/healthz").status == 503
    finally:
        site.run("ln", "-sfn", str(serving), f"{HOME}/current")
        nowhere.rmdir()
    assert site.get("/healthz").status == 200
