"""Hosts, proxies and TLS: what a request may claim about itself."""

from types import SimpleNamespace
from typing import cast

import pytest
from flask import Flask, request

from bulwark.settings import Config
from bulwark.web import proxy
from tests.conftest import Visitor


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "evil.example:443", "[::2]"]
)
def test_an_unknown_host_is_refused(visitor: Visitor, host: str):
    assert visitor.get("/", headers={"Host": host}).status_code == 400


@pytest.mark.parametrize(
    "base", ["http://10.1.2.3:8000", "https://[fd00::1]", "https://x"]
)
@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_a_health_check_may_name_any_host(visitor: Visitor, path: str, base: str):
    """Load balancers ask each server by its IP, some of them without TLS."""
    for method in ("GET", "HEAD"):
        answer = visitor.client.open(path, method=method, base_url=base)
        assert answer.status_code == 200
        assert "__Host-" not in str(answer.headers.getlist("Set-Cookie"))
    assert visitor.client.post(path, base_url=base).status_code in (400, 403)


@pytest.mark.parametrize(
    "path",
    ["/", "/login", "/healthz/", "//healthz", "/healthz/../login", "/readyz.json"],
)
def test_nothing_else_answers_for_another_host(visitor: Visitor, path: str):
    assert visitor.get(path, base_url="https://10.1.2.3").status_code == 400


@pytest.mark.parametrize(
    "header", ["X-Forwarded-Host", "Forwarded", "X-Original-Host", "X-Host"]
)
def test_a_link_in_an_email_never_leads_to_a_host_that_a_header_names(
    visitor: Visitor, person: str, header: str
):
    visitor.submit(
        "/reset", {"email": person}, headers={header: "host=evil.example,evil.example"}
    )
    assert "evil" not in str(visitor.letters()[-1])


def test_a_page_without_tls_leads_to_tls(visitor: Visitor):
    answer = visitor.get("/login", base_url="http://localhost")
    assert answer.status_code == 301
    assert answer.headers["Location"] == "https://localhost/login"


def test_a_visitor_can_not_claim_that_tls_was_used(visitor: Visitor):
    claim = {"X-Forwarded-Proto": "https"}
    answer = visitor.get("/login", base_url="http://localhost", headers=claim)
    assert answer.status_code == 301


def test_what_was_sent_without_tls_is_refused(visitor: Visitor):
    answer = visitor.client.post("/login", base_url="http://localhost")
    assert answer.status_code == 403
    assert "Location" not in answer.headers


def seen_by_an_app_behind(hops: int, **headers: str) -> tuple[str | None, str, str]:
    """Return the address, scheme and host that an app behind proxies sees."""
    app = Flask("tests")
    settings = SimpleNamespace(allowed_hosts=["shop.test"], proxy_hops=hops)
    proxy.init_app(app, cast("Config", settings))

    @app.get("/")
    def index() -> dict[str, str | None]:
        return {"a": request.remote_addr, "s": request.scheme, "h": request.host}

    answer = app.test_client().get(
        "/",
        base_url="http://shop.test",
        environ_base={"REMOTE_ADDR": "192.0.2.1"},
        headers={name.replace("_", "-"): value for name, value in headers.items()},
    )
    return tuple(answer.get_json()[key] for key in "ash")


FORGED = {
    "X_Forwarded_For": "203.0.113.9",
    "X_Forwarded_Proto": "https",
    "X_Forwarded_Host": "evil.example",
}


def test_without_a_proxy_no_header_is_believed():
    assert seen_by_an_app_behind(0, **FORGED) == ("192.0.2.1", "http", "shop.test")


def test_behind_one_proxy_only_its_own_entry_is_believed():
    headers = {**FORGED, "X_Forwarded_For": "203.0.113.9, 198.51.100.7"}
    assert seen_by_an_app_behind(1, **headers) == ("198.51.100.7", "https", "shop.test")


@pytest.mark.parametrize(
    ("forwarded", "address"),
    [
        ("198.51.100.7:51823", "198.51.100.7"),
        ("203.0.113.9:80, 198.51.100.7:51823", "198.51.100.7"),
        ("[2001:db8::7]:51823", "2001:db8::7"),
        ("[2001:db8::7]", "2001:db8::7"),
        ("2001:db8::7", "2001:db8::7"),
        ("unknown", "unknown"),
    ],
)
def test_the_port_that_a_client_came_from_is_no_part_of_its_address(
    forwarded: str, address: str
):
    """Azure's gateways add it: rack/rack#1227."""
    assert seen_by_an_app_behind(1, X_Forwarded_For=forwarded)[0] == address
