"""Both proxies: headers, error pages, compression and caching."""

import re
from collections import Counter
from typing import Any

import pytest

from tests.support.deployed import HOME, NAME
from tests.support.machine import NEEDS_MACHINE
from tests.support.proxied import HOME_LINK, MEBIBYTE, SECRET, Site, curl
from tests.support.visitor import DOMAIN, SECURITY_HEADERS

pytestmark = NEEDS_MACHINE


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
    hidden = ("nginx/", "apache/", "debian", "openssl", "gunicorn", "python/")
    assert answer.words(*hidden, "werkzeug", "traceback", NAME, SECRET) == set()


def test_the_proxy_sends_the_headers_of_the_service(site: Site) -> None:
    by_proxy, by_service = (site.get(path) for path in ("/test/file", "/"))
    assert by_proxy.fixed_security == by_service.fixed_security


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
    received = site.send_lines(line, f"Host: {DOMAIN}", "Connection: close", *more)
    head, _, body = received.decode().partition("\r\n\r\n")
    status = int(head.split()[1])
    assert status in statuses, received
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
        received = site.get(target).header("Cache-Control") or "no-cache"
        assert "no-cache" in received


def test_no_tag_contains_the_inode_of_a_file(site: Site) -> None:
    tag = site.get("/static/app.css").header("ETag")
    assert tag
    number = site.path(f"{HOME}/current/public/static/app.css").stat().st_ino
    assert f"{number:x}" not in tag.strip('"').split("-")


def test_a_service_that_is_down_has_an_error_page(site: Site) -> None:
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


def test_a_switch_shows_the_maintenance_page(site: Site) -> None:
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
