"""nginx: which requests reach the service, and how it sees them."""

import json
import ssl
import subprocess

import pytest

from tests.support.edge import (
    EdgeVisitor,
    Site,
)
from tests.support.visitor import (
    DOMAIN,
    SECURITY_HEADERS,
)

pytestmark = pytest.mark.needs("nginx")


def test_http_leads_to_https(visitor: EdgeVisitor) -> None:
    answer = visitor.ask("/prices?page=2", port=80)
    assert answer.status == 308
    assert answer.header("Location") == f"https://{DOMAIN}/prices?page=2"
    # RFC 6797, 7.2: never over a connection that somebody may have tampered with.
    assert answer.count_security().keys() == SECURITY_HEADERS - {
        "strict-transport-security"
    }


def test_certbot_can_show_that_the_domain_is_ours(
    site: Site, visitor: EdgeVisitor
) -> None:
    (site.nginx.folder / "www/.well-known/acme-challenge/token").write_text("proof")
    answer = visitor.ask("/.well-known/acme-challenge/token", port=80)
    assert (answer.status, answer.body) == (200, "proof")


@pytest.mark.parametrize("host", ["evil.example", f"www.{DOMAIN}", "127.0.0.1"])
def test_an_unknown_host_gets_no_answer_without_tls(
    visitor: EdgeVisitor, host: str
) -> None:
    assert visitor.send_lines("GET / HTTP/1.1", f"Host: {host}", port=80) == b""


@pytest.mark.parametrize("name", ["evil.example", f"www.{DOMAIN}", None])
def test_an_unknown_name_gets_no_certificate(
    visitor: EdgeVisitor, name: str | None
) -> None:
    with pytest.raises(ssl.SSLError, match="UNRECOGNIZED_NAME"):
        visitor.connect(name=name)


def test_a_host_other_than_the_certificates_is_misdirected(
    visitor: EdgeVisitor,
) -> None:
    assert visitor.ask("/", Host="evil.example").status == 421


LIES: list[dict[str, str]] = [
    {"X_Forwarded_Host": "evil.example"},
    {"X_Forwarded_For": "203.0.113.9", "X_Real_IP": "203.0.113.9"},
    {"X_Forwarded_Proto": "http", "X_Forwarded_Port": "81", "X_Forwarded_Prefix": "/x"},
    {"Forwarded": "for=203.0.113.9;host=evil.example;proto=http"},
    {"X_Original_URL": "/account", "X_Rewrite_URL": "/account"},
]


@pytest.mark.parametrize("lie", LIES)
def test_a_redirect_never_leads_to_a_host_that_a_visitor_names(
    visitor: EdgeVisitor, lie: dict[str, str]
) -> None:
    for port in (80, 443):
        location = visitor.ask("/account", port=port, **lie).header("Location")
        assert location
        assert location.startswith(("/login", f"https://{DOMAIN}/"))
        assert "evil" not in location


def test_a_target_with_another_host_is_not_served(visitor: EdgeVisitor) -> None:
    lines = (
        "GET http://evil.example/ HTTP/1.1",
        f"Host: {DOMAIN}",
        "Connection: close",
    )
    assert visitor.send_lines(*lines, port=80) == b""
    received = visitor.send_lines(*lines)
    assert received.startswith(b"HTTP/1.1 421")
    assert b"evil" not in received


@pytest.mark.parametrize("lie", LIES)
def test_the_service_sees_who_really_asks(
    visitor: EdgeVisitor, lie: dict[str, str]
) -> None:
    seen = json.loads(visitor.ask("/test/seen", **lie).body)
    assert (seen["address"], seen["secure"]) == ("127.0.0.1", True)
    assert seen["host"] == DOMAIN
    assert "203.0.113.9" not in json.dumps(seen)
    assert "evil" not in json.dumps(seen)


def test_headers_that_another_name_could_stand_for_are_dropped(
    visitor: EdgeVisitor,
) -> None:
    for name in ("Proxy", "Script_Name", "Path-Info", "X_Forwarded_For"):
        line = f"{name}: /evil"
        host = (f"Host: {DOMAIN}", "Connection: close")
        received = visitor.send_lines("GET /test/seen HTTP/1.1", *host, line)
        assert received.startswith(b"HTTP/1.1 200")
        assert (b"/evil" in received) == (name == "Path-Info"), (
            "a header like any other"
        )


@pytest.mark.parametrize("method", ["TRACE", "CONNECT"])
def test_methods_that_echo_or_tunnel_are_refused(
    visitor: EdgeVisitor, method: str
) -> None:
    assert visitor.ask("/", method).status in (400, 405)


def test_a_body_may_have_one_mebibyte(visitor: EdgeVisitor) -> None:
    assert visitor.ask("/", "PUT", b"x" * 1024 * 1024).status != 413
    assert visitor.ask("/", "PUT", b"x" * (1024 * 1024 + 1)).status == 413


def test_tls_is_1_2_or_1_3_and_speaks_http_2(visitor: EdgeVisitor) -> None:
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        stream = visitor.connect(minimum_version=version, maximum_version=version)
        with stream:
            assert isinstance(stream, ssl.SSLSocket)
            assert stream.selected_alpn_protocol() == "h2"
            assert stream.version() == version.name.replace("_", ".")


@pytest.mark.needs("openssl")
@pytest.mark.parametrize("version", ["-tls1", "-tls1_1"])
def test_older_tls_is_refused(site: Site, version: str) -> None:
    address = f"127.0.0.1:{site.nginx.ports[443]}"
    received = subprocess.run(
        [
            *("openssl", "s_client", version, "-cipher", "ALL:@SECLEVEL=0"),
            *("-servername", DOMAIN, "-connect", address),
        ],
        input=b"",
        capture_output=True,
        check=False,
    )
    assert b"alert protocol version" in received.stderr
