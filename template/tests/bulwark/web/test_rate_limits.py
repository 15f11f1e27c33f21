"""Rate limits: requests of a network, counted in memory while Redis is down."""

import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from flask import Blueprint, Flask, url_for
from limits.storage import MemoryStorage
from redis.exceptions import ConnectionError as RedisConnectionError
from sqlalchemy import select
from werkzeug.test import TestResponse

from bulwark.audit.events import SecurityEvent
from bulwark.database import db
from bulwark.identity.throttling import LIMITS
from bulwark.web import rate_limits
from bulwark.web.access import public
from bulwark.web.rate_limits import Counters, limit, limiter
from tests.conftest import Visitor

Ask = Callable[..., TestResponse]


@public
@limit("3 per minute")
def prices() -> str:
    """A view of a team, with a limit."""
    return "cheap"


@pytest.fixture
def shop(app: Flask, visitor: Visitor, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Asks for the prices from an address; returns the answer."""
    monkeypatch.setitem(app.view_functions, "health.live", prices)

    def ask(address: str = "192.0.2.1", **headers: str) -> TestResponse:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return visitor.get(
            "/healthz", environ_base={"REMOTE_ADDR": address}, headers=sent
        )

    return ask


def events(app: Flask, name: str) -> list[SecurityEvent]:
    with app.app_context():
        found = select(SecurityEvent).where(SecurityEvent.name == name)
        return list(db.session.scalars(found))


def codes(shop: Ask, times: int) -> list[int]:
    return [shop().status_code for _ in range(times)]


def test_a_network_has_a_limit(shop: Ask):
    assert codes(shop, 4) == [200, 200, 200, 429]
    refused = shop()
    assert 0 < int(refused.headers["Retry-After"]) <= 60
    assert "Too many requests" in refused.text
    assert "Try again in a minute." in refused.text
    assert shop("192.0.2.2").text == "cheap"


def test_a_script_reads_how_long_to_wait(shop: Ask):
    codes(shop, 3)
    answer = shop(Accept="application/json")
    assert answer.status_code == 429
    assert answer.get_json()["hint"] == "Try again in a minute."


def test_an_invented_address_in_a_header_is_no_other_network(shop: Ask):
    answers = [
        shop(
            X_Forwarded_For=f"203.0.113.{n}",
            X_Real_IP=f"203.0.113.{n}",
            Forwarded=f"for=203.0.113.{n}",
        ).status_code
        for n in range(4)
    ]
    assert answers == [200, 200, 200, 429]


def test_an_ipv6_network_is_one_however_many_addresses_it_uses(shop: Ask):
    answers = [shop(f"2001:db8::{n}").status_code for n in range(4)]
    assert answers == [200, 200, 200, 429]
    assert shop("2001:db8:0:1::1").status_code == 200


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("64:ff9b::198.51.100.7", "64:ff9b::c633:6407"),
        ("64:ff9b:1:ffff::198.51.100.7", "64:ff9b:1:ffff::c633:6407"),
        ("64:ff9b:2::1", "64:ff9b:2::/64"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("", "unknown"),
        ("192.0.2.1:5000", "192.0.2.1:5000"),
    ],
)
def test_a_network_is_an_ipv4_address_or_the_64_of_an_ipv6_address(
    app: Flask, address: str, network: str
):
    with app.test_request_context(environ_base={"REMOTE_ADDR": address}):
        assert rate_limits.network() == network


def test_a_limit_that_is_reached_is_one_event_however_often(app: Flask, shop: Ask):
    for _ in range(6):
        shop("192.0.2.1")
        shop("192.0.2.2")
    found = events(app, "excess_rate_limit_exceeded")
    assert sorted(str(event.address) for event in found) == ["192.0.2.1", "192.0.2.2"]
    assert found[0].details == {"limit": "3 per 1 minute"}


def test_two_processes_record_one_event(
    app: Flask, shop: Ask, monkeypatch: pytest.MonkeyPatch
):
    """Without Redis each counts for itself; the database is what they share."""
    for own in (MemoryStorage(), MemoryStorage()):
        monkeypatch.setattr(limiter.storage, "_memory", own)
        assert codes(shop, 5) == [200, 200, 200, 429, 429]
    assert len(events(app, "excess_rate_limit_exceeded")) == 1


@pytest.mark.usefixtures("public_sign_up")
@pytest.mark.parametrize(
    ("name", "endpoint"),
    [(name, e) for name in sorted(LIMITS) for e in LIMITS[name][1]],
)
def test_the_routes_of_accounts_are_limited(
    name: str,
    endpoint: str,
    visitor: Visitor,
    app: Flask,
    person: str,
    monkeypatch: pytest.MonkeyPatch,
):
    visitor.sign_in(person)
    rule = next(app.url_map.iter_rules(endpoint))
    with app.test_request_context():
        values: dict[str, Any] = dict.fromkeys(rule.arguments, "x")
        path = url_for(endpoint, **values)
    token = visitor.csrf_token("/change")
    keys: list[str] = []

    def full(key: str, *_: object, **__: object) -> int:
        keys.append(key)
        return 1000

    monkeypatch.setattr(limiter.storage, "incr", full)
    answer = visitor.client.post(
        path,
        data={"csrf_token": token},
        headers={"Referer": "https://localhost/change"},
    )
    assert answer.status_code == 429
    assert f"/127.0.0.1/{name}/" in keys[0]


@pytest.mark.usefixtures("public_sign_up")
def test_looking_at_pages_is_not_limited(visitor: Visitor):
    pages = ("/login", "/register", "/reset")
    assert {visitor.get(page).status_code for page in pages for _ in range(35)} == {200}


# --- Redis is down --------------------------------------------------------------------


class FakeRedis(MemoryStorage):
    """A Redis that can be down; the repository's own tests use a real one."""

    down = False
    calls = 0

    def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        self.calls += 1
        if self.down:
            raise RedisConnectionError("down")
        return super().incr(key, expiry, amount)


@pytest.fixture
def redis(app: Flask, monkeypatch: pytest.MonkeyPatch) -> FakeRedis:
    """A Redis behind the app's counters."""
    fake = FakeRedis()
    monkeypatch.setattr(limiter.storage, "_redis", fake)
    monkeypatch.setattr(limiter.storage, "_down", False)
    monkeypatch.setattr(limiter.storage, "_retry_at", 0.0)
    return fake


def test_while_redis_is_down_the_process_counts_and_records_it_once(
    app: Flask, shop: Ask, redis: FakeRedis, monkeypatch: pytest.MonkeyPatch
):
    redis.down = True
    assert codes(shop, 5) == [200, 200, 200, 429, 429]
    (event,) = events(app, "sys_limiter_degraded")
    assert event.reason == "ConnectionError"
    assert redis.calls == 1, "no retry before the pause has ended"
    # Another process finds out too.
    monkeypatch.setattr(limiter.storage, "_down", False)
    monkeypatch.setattr(limiter.storage, "_retry_at", 0.0)
    shop()
    assert redis.calls == 2
    assert len(events(app, "sys_limiter_degraded")) == 1


def test_redis_is_used_again_and_a_second_outage_is_recorded(
    app: Flask, shop: Ask, redis: FakeRedis, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(rate_limits, "REDIS_PAUSE", 0)
    for down in (True, False, True):
        redis.down = down
        redis.calls = 0
        shop("192.0.2.1")
        shop("192.0.2.2")
        assert redis.calls == 2
    assert len(events(app, "sys_limiter_degraded")) == 2


def test_a_redis_that_does_not_answer_costs_a_moment(app: Flask):
    """It accepts connections and never responds, as behind a broken network."""
    with socket.create_server(("127.0.0.1", 0), backlog=8) as silent:
        port = silent.getsockname()[1]
        counters = Counters("bulwark://", f"redis://127.0.0.1:{port}")
        with app.test_request_context():
            assert counters.incr("key", 60) == 1
            assert counters.incr("key", 60) == 2
        assert counters._retry_at > 0


@pytest.mark.skipif(not shutil.which("redis-server"), reason="needs redis-server")
def test_a_real_redis_may_die_and_come_back(
    app: Flask, shop: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    counters = Counters("bulwark://", f"redis://127.0.0.1:{port}")
    monkeypatch.setattr(limiter, "_storage", counters)
    monkeypatch.setattr(limiter.limiter, "storage", counters)
    monkeypatch.setattr(rate_limits, "REDIS_PAUSE", 0)
    with redis_server(port, tmp_path):
        assert codes(shop, 2) == [200, 200]
    assert codes(shop, 4) == [200, 200, 200, 429], "this process counts from 1"
    assert len(events(app, "sys_limiter_degraded")) == 1
    with redis_server(port, tmp_path):
        assert codes(shop, 4) == [200, 200, 200, 429]
    assert len(events(app, "sys_limiter_degraded")) == 1


@contextmanager
def redis_server(port: int, folder: Path) -> Iterator[None]:
    """Run an empty Redis while the block lasts."""
    command = ["redis-server", "--port", str(port), "--save", "", "--dir", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
        try:
            end = time.monotonic() + 20
            while time.monotonic() < end:
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    time.sleep(0.02)
            yield
        finally:
            server.kill()


@pytest.mark.parametrize("of", ["view", "blueprint", "every view", "app"])
def test_limits_hold_wherever_they_are_set(of: str):
    blueprint, app = Blueprint("shop", __name__), Flask("shop")
    whole = {"every view": "default_limits", "app": "application_limits"}
    options: dict[str, Any] = {whole[of]: ["1 per minute"]} if of in whole else {}
    own = rate_limits.ViewLimiter(lambda: "same", storage_uri="memory://", **options)
    view: Any = lambda: "open"  # noqa: E731
    blueprint.get("/")(own.limit("1 per minute")(view) if of == "view" else view)
    if of == "blueprint":
        own.limit("1 per minute")(blueprint)
    app.register_blueprint(blueprint)
    own.init_app(app)
    client = app.test_client()
    assert [client.get("/").status_code for _ in range(2)] == [200, 429]
