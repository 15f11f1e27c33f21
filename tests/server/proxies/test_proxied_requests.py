"""Both proxies: which requests reach the service, and how it sees them."""

import json
import re
import socket
import ssl
from collections import Counter
from typing import Any

import pytest

from tests.support.deployed import ALIAS, NAME
from tests.support.machine import NEEDS_MACHINE
from tests.support.proxied import HOME_LINK, MEBIBYTE, PLACES, Site
from tests.support.servers import PATIENCE
from tests.support.visitor import DOMAIN, SECURITY_HEADERS

pytestmark = NEEDS_MACHINE


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
    received = site.send_lines(
        "GET / HTTP/1.1", f"Host: {host}", "Connection: close", port=80
    )
    assert DOMAIN.encode() not in received
    if site.proxy == "nginx":
        assert received == b"" or received.startswith(b"HTTP/1.1 400")
    else:
        # Apache can't hang up.
        assert re.match(rb"HTTP/1.1 (421|400) ", received)
        assert received.partition(b"\r\n\r\n")[2].strip() == b"" or host == ""


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
    received = site.send_lines(line, f"Host: {DOMAIN}", "Connection: close")
    assert received.startswith(b"HTTP/1.1 421")
    assert b"evil" not in received


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
    received = site.send_lines("GET /test/seen HTTP/1.1", *lines)
    assert received.startswith(b"HTTP/1.1 200")
    assert b"/evil" not in received


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
    received = site.send_lines(f"{HEAD}\r\n{SMUGGLED[how]}")
    # 411: see above. 501: RFC 9112, 6.1.
    assert re.match(rb"HTTP/1.1 (400|411|501) ", received), received
    assert received.count(b"HTTP/1.1 ") == 1


# gunicorn is the same everywhere.
@pytest.mark.parametrize("site", PLACES[:1], ids="-".join, indirect=True)
@pytest.mark.parametrize("how", SMUGGLED)
def test_gunicorn_itself_refuses_a_request_in_a_request(site: Site, how: str) -> None:
    received = b""
    with socket.socket(socket.AF_UNIX) as stream:
        stream.settimeout(PATIENCE)
        stream.connect(str(site.path(f"/run/{NAME}/{site.current}/web.sock")))
        stream.sendall(f"{HEAD}\r\n{SMUGGLED[how]}\r\n\r\n".encode())
        while more := stream.recv(65536):
            received += more
    assert re.match(rb"HTTP/1.1 (400|501) ", received), received
    assert received.count(b"HTTP/1.1 ") == 1
