"""Names of hosts and addresses in the settings: they work, or stop the start."""

import socket
import urllib.request
from dataclasses import replace
from email.headerregistry import Address
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from prometheus_client import CollectorRegistry

from bulwark import settings
from bulwark.ops import exporter
from bulwark.web import proxy
from tests.bulwark.conftest import problems

# A setting as people write it, and what is read.
READ: dict[str, dict[str, Any]] = {
    "APP_ALLOWED_HOSTS": {
        "shop.de,www.de": ("shop.de", "www.de"),
        "shop.de www.de": ("shop.de", "www.de"),
        "shop.de, www.de,": ("shop.de", "www.de"),
        "Shop.Corp.de": ("shop.corp.de",),
        "shop.de.": ("shop.de",),
        "shop.de:8443": ("shop.de",),
        "münchen.de": ("xn--mnchen-3ya.de",),
        "10.0.0.1": ("10.0.0.1",),
        "[::1]": ("[::1]",),
        "web": ("web",),
    },
    "APP_DOMAIN": {"Shop.de": "shop.de", "münchen.de": "xn--mnchen-3ya.de"},
    "APP_BASE_URL": {
        "https://Shop.de/": "https://shop.de",
        "https://shop.de:8443": "https://shop.de:8443",
        "https://münchen.de": "https://xn--mnchen-3ya.de",
        "https://[::1]:8443": "https://[::1]:8443",
    },
    "APP_MAIL_SENDER": {
        "no-reply@shop.de": "no-reply@shop.de",
        "no-reply@münchen.de": "no-reply@xn--mnchen-3ya.de",
        "No.Reply+x@Shop.de": "No.Reply+x@shop.de",
        "shop@localhost": "shop@localhost",
        "shop@shop.local": "shop@shop.local",
    },
    "APP_BREACH_SERVICE": {
        "https://api.pwnedpasswords.com/range/": "https://api.pwnedpasswords.com/range",
        "http://localhost:8080/range": "http://localhost:8080/range",
        "": "",
    },
    "APP_ADMIN_EMAIL": {"ops@münchen.de": "ops@xn--mnchen-3ya.de"},
    "APP_METRICS_BIND": {
        "127.0.0.1:9464": "127.0.0.1:9464",
        "[::1]:9464": "[::1]:9464",
        "exporter:9464": "exporter:9464",
    },
}
REFUSED = {
    "APP_ALLOWED_HOSTS": [
        "shop.de # both",
        "https://shop.de",
        "shop.de/path",
        "*.shop.de",
        "me@shop.de",
        "shop..de",
        "-",
        "[::1",
        f"{'a' * 64}.de",
    ],
    "APP_DOMAIN": ["shop.de www.de", "https://shop.de"],
    "APP_BASE_URL": [
        "http://shop.de",
        "shop.de",
        "https://shop.de/app",
        "https://shop.de?x",
        "https://shop.de#x",
        "https://me:hunter2@shop.de",
        "https://",
        "https://shop.de:port",
        "https://shop.de # ours",
    ],
    "APP_MAIL_SENDER": [
        "My Service <no-reply@corp.de>",
        "no-reply",
        "nö-reply@corp.de",
        "a@b@corp.de",
        "a@corp.de, b@corp.de",
        "a@corp.de # ours",
        "a@corp.de\nBcc: b@corp.de",
    ],
    "APP_BREACH_SERVICE": [
        "http://api.pwnedpasswords.com/range",
        "api.pwnedpasswords.com/range",
        "https://me:hunter2@hashes.corp.de",
        "https://hashes.corp.de/range?key=1",
        "yes",
    ],
    "APP_METRICS_BIND": ["9464", ":9464", "::1:9464", "[::1]", "a b:9464", "h:0"],
}


@pytest.mark.parametrize(
    ("name", "written", "read"),
    [(name, *pair) for name, pairs in READ.items() for pair in pairs.items()],
)
def test_what_people_write_is_read_as_they_mean_it(
    production: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    written: str,
    read: object,
):
    monkeypatch.setenv(name, written)
    loaded, _ = settings.load(production)
    assert getattr(loaded, name.removeprefix("APP_").lower()) == read


@pytest.mark.parametrize(
    ("name", "written"), [(n, text) for n, texts in REFUSED.items() for text in texts]
)
def test_what_can_not_work_stops_the_start(
    production: Path, monkeypatch: pytest.MonkeyPatch, name: str, written: str
):
    monkeypatch.setenv(name, written)
    message = problems(production)
    assert message.startswith("1 problem ")
    assert name in message


def test_each_sender_that_is_read_can_stand_in_a_header():
    for sender in READ["APP_MAIL_SENDER"].values():
        assert Address("Shop", addr_spec=sender).addr_spec == sender


def _has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_metrics_are_served_on_each_kind_of_address(host: str):
    if host == "[::1]" and not _has_ipv6():
        pytest.skip("this machine has no IPv6")
    server = exporter.listen(f"{host}:0", CollectorRegistry())
    idle = socket.create_connection((host.strip("[]"), server.server_port))
    url = f"http://{host}:{server.server_port}/"
    with idle, server, urllib.request.urlopen(url, timeout=5) as answer:
        assert answer.status == 200
        server.shutdown()


@pytest.mark.parametrize("host", ["[::1]", "[::1]:8443", "10.0.0.1:8443", "web"])
def test_each_kind_of_host_is_answered(whole_app: Flask, host: str):
    hosts_of_ours = replace(
        whole_app.extensions["bulwark"], allowed_hosts=("[::1]", "10.0.0.1", "web")
    )
    app = Flask("hosts")
    proxy.init_app(app, hosts_of_ours)
    app.add_url_rule("/", view_func=lambda: "here")
    client = app.test_client()
    assert client.get("/", base_url=f"https://{host}").status_code == 200
    assert client.get("/", base_url="https://[::2]").status_code == 400
    assert client.get("/", base_url="https://elsewhere").status_code == 400
