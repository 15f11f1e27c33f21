"""nginx: headers, compression and cookies."""

import json
import re
from collections import Counter
from email.message import Message
from typing import Any

import pytest

from tests.conftest import run
from tests.support.edge import (
    ENVIRONMENT,
    EdgeVisitor,
    Site,
)
from tests.support.visitor import (
    PASSWORD,
    SECURITY_HEADERS,
    Response,
)

pytestmark = pytest.mark.needs("nginx")


ANSWERED: dict[str, tuple[int, dict[str, Any]]] = {
    "a page": (200, {"target": "/"}),
    "JSON": (200, {"target": "/healthz"}),
    "a style sheet": (200, {"target": "/static/app.css"}),
    "a redirect": (302, {"target": "/account"}),
    "nothing there": (404, {"target": "/nothing"}),
    "a form without a token": (400, {"target": "/login", "method": "POST", "body": ""}),
    "a wrong method": (405, {"target": "/healthz", "method": "DELETE"}),
    "a fault": (500, {"target": "/test/broken"}),
    "TRACE, by nginx": (405, {"target": "/", "method": "TRACE"}),
    "too large, by nginx": (
        413,
        {"target": "/", "method": "PUT", "body": b"x" * 2_000_000},
    ),
    "too many headers, by gunicorn": (
        431,
        {"target": "/", **{f"X_{n}": "x" for n in range(70)}},
    ),
    "a header of 20 kB, by nginx": (400, {"target": "/", "X_Long": "x" * 20_000}),
    "the team's text": (200, {"target": "/robots.txt"}),
    "the team's file": (200, {"target": "/test/files/app.css"}),
    "the team's file, missing": (404, {"target": "/test/files/none"}),
    "the team's proxied location": (200, {"target": "/test/proxied"}),
    "the team's location with a header": (204, {"target": "/test/own-header"}),
}


@pytest.mark.parametrize("what", ANSWERED)
def test_every_answer_carries_each_security_header_once(
    visitor: EdgeVisitor, what: str
) -> None:
    status, request = ANSWERED[what]
    answer = visitor.ask(**request)
    assert answer.status == status, answer.body
    assert answer.count_security() == Counter(SECURITY_HEADERS)


@pytest.mark.parametrize("what", ANSWERED)
def test_no_answer_names_a_version_or_what_is_behind(
    visitor: EdgeVisitor, what: str
) -> None:
    answer = visitor.ask(**ANSWERED[what][1])
    assert answer.header("Server") == "nginx"
    assert answer.header("X-Powered-By") is None
    hidden = ("nginx/", "gunicorn", "python/", "werkzeug", "traceback", PASSWORD)
    assert answer.words(*hidden) == set()


def test_nginx_sends_the_headers_of_the_service(visitor: EdgeVisitor) -> None:
    by_nginx, by_service = (visitor.ask(path) for path in ("/robots.txt", "/"))
    assert by_nginx.fixed_security == by_service.fixed_security


def test_development_has_the_policy_of_production(
    site: Site, visitor: EdgeVisitor
) -> None:
    ask = """
import json
from wsgi import app
answer = app.test_client().get("/login", base_url="https://localhost:8443")
print(json.dumps(list(answer.headers)))
"""
    settings = {"APP_ENV": "development", "ENV_FILE": str(site.settings)}
    python = site.service / ".venv/bin/python"
    received = run(python, "-c", ask, cwd=site.service, env=ENVIRONMENT | settings)
    headers = Message()
    for name, value in json.loads(received.splitlines()[-1]):
        headers[name] = value
    here = Response(200, headers, "").security
    there = visitor.ask("/login").security
    # Browsers apply HSTS to every port of localhost.
    assert here.keys() == there.keys() - {"strict-transport-security"}
    differ = {name for name in here if here[name] != there[name]}
    assert differ == {"content-security-policy", "x-request-id"}
    nonce = re.compile(r"'nonce-[^']+'")
    policies = [nonce.sub("", a["content-security-policy"]) for a in (here, there)]
    assert policies[0] == policies[1]


def test_a_page_is_never_compressed(visitor: EdgeVisitor) -> None:
    assert visitor.ask("/", Accept_Encoding="gzip").header("Content-Encoding") is None


def test_cookies_are_bound_to_the_host_and_out_of_reach(visitor: EdgeVisitor) -> None:
    cookies = visitor.ask("/login").headers.get_all("Set-Cookie", [])
    assert cookies
    for cookie in cookies:
        name, *attributes = re.split(r"; ?", cookie)
        assert name.startswith("__Host-")
        assert {"Secure", "HttpOnly", "Path=/", "SameSite=Lax"} <= set(attributes)
        assert not [a for a in attributes if a.startswith("Domain")]
