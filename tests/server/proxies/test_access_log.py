"""Both proxies: each request is one line of JSON, without secrets."""

import json
import re
from ipaddress import ip_address, ip_network

import pytest

from tests.support.deployed import NAME
from tests.support.machine import NEEDS_MACHINE
from tests.support.proxied import Site
from tests.support.visitor import DOMAIN

pytestmark = NEEDS_MACHINE


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
    received = site.send_lines(
        f"GET {target} HTTP/1.1",
        f"Host: {DOMAIN}",
        "Connection: close",
        f"Referer: https://{DOMAIN}/{TOKEN}",
    )
    found = re.search(rb"(?i)x-request-id: (\w+)", received)
    assert found, received
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
                site.send_lines(line, named, b"Connection: close", port=port)
    site.logged(site.get("/healthz").header("X-Request-ID"))
    lines = site.path(site.log).read_bytes().splitlines()
    assert len(lines) > 10
    for line in lines:
        assert list(json.loads(line.decode())) == LOGGED
