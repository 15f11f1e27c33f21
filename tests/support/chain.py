"""Prometheus and Alertmanager as they are delivered, and what they ask and notify."""

import http.server
import json
import re
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import yaml

from tests.conftest import ROOT
from tests.support.servers import eventually, free_port, running, wait_for_port

MONITORING = ROOT / "template/deploy/monitoring"
LOCAL = "http://127.0.0.1"
LONG = 180  # seconds for what takes one or two minutes where nothing else runs

# What `flask metrics` exposes, and what Prometheus exposes about itself.
METRICS = {
    *("http_requests_total", "security_events_total", "sign_in_steps_total"),
    *(f"http_request_duration_seconds_{part}" for part in ("bucket", "count", "sum")),
    "sign_in_failures_recent",
    "sign_in_failures_recent_accounts",
    "sign_in_failures_recent_networks",
    "sign_in_failures_recent_per_account_max",
    "sign_in_failures_recent_per_network_max",
    "second_factor_failures_recent_per_account_max",
    *("web_up", "limiter_up", "database_up"),
    *("database_pool_in_use", "database_pool_size"),
    "browser_reports_total",
    *("mail_waiting", "mail_oldest_seconds", "mail_failed"),
    *("jobs_waiting", "jobs_failed"),
    "key_used_since_timestamp_seconds",
    "jobs_heartbeat_timestamp_seconds",
    "certificate_life_left_ratio",
    "certificate_expires_timestamp_seconds",
    *("backup_first_timestamp_seconds", "backup_last_timestamp_seconds"),
    *("restore_drill_failed", "restore_drill_last_timestamp_seconds"),
    "restore_drill_duration_seconds",
    *("audit_chain_valid", "audit_checked_timestamp_seconds", "audit_rows"),
    *("disk_free_ratio", "log_lines_dropped_total", "build_info", "administrators"),
    "up",
}


def load(name: str) -> Any:
    return yaml.safe_load((MONITORING / name).read_text())


def rules() -> list[dict[str, Any]]:
    (group,) = load("rules.yml")["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


class Shop:
    """A service that Prometheus scrapes, and a receiver of Alertmanager."""

    def __init__(self) -> None:
        self.metrics = {"up_and_well": 1.0}
        self.alerts: list[dict[str, Any]] = []
        shop = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                lines = [f"{name} {value}\n" for name, value in shop.metrics.items()]
                self.answer("".join(lines).encode())

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                message = json.loads(body)
                for alert in message["alerts"]:
                    shop.alerts.append({"to": self.path, **alert})
                self.answer(b"")

            def answer(self, body: bytes) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self.handler = Handler

    @contextmanager
    def open(self, port: int = 0, address: str = "127.0.0.1") -> Iterator[int]:
        with http.server.ThreadingHTTPServer((address, port), self.handler) as server:
            thread = threading.Thread(target=server.serve_forever, args=[0.05])
            thread.start()
            try:
                yield server.server_port
            finally:
                server.shutdown()
                thread.join()

    def find_alert(
        self, name: str, since: float = 0, **labels: str
    ) -> dict[str, Any] | None:
        """Return the notification of an alert that began after a time."""
        wanted = {"alertname": name, **labels}
        for alert in self.alerts:
            begun = datetime.fromisoformat(alert["startsAt"]).timestamp()
            if alert["labels"].items() >= wanted.items() and begun >= since:
                return alert
        return None


def receivers(listening: str) -> list[dict[str, Any]]:
    """Return the receivers of notifications, where a `Shop` listens."""
    return [
        {"name": name, "webhook_configs": [{"url": f"{listening}/{name}"}]}
        for name in ("page", "ticket")
    ]


# Numbers of expressions that are seconds; all others are counts and shares.
SECONDS = re.compile(r"\b(300|900|3600|86400)\b")


def faster(content: Any, speed: int) -> Any:
    """Return rules whose hours are so many times as short, else as they were."""

    def shorter(duration: re.Match[str]) -> str:
        unit = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
        return f"{int(duration[1]) * unit[duration[2]] // speed}ms"

    def scaled(text: str) -> str:
        text = re.sub(r"(?<![\w.])(\d+)([smhd])\b", shorter, text)
        return SECONDS.sub(lambda found: f"{int(found[0]) / speed:g}", text)

    for rule in content["groups"][0]["rules"]:
        rule |= {key: scaled(rule[key]) for key in ("expr", "for") if key in rule}
    return content


class Chain:
    """Prometheus and Alertmanager as they are delivered, only faster."""

    def __init__(
        self, folder: Path, shop: Shop, inbox: int, exporter: int, speed: int = 60
    ) -> None:
        self.folder = folder
        self.shop = shop
        self.alertmanager, self.prometheus = free_port(), free_port()
        settings = load("alertmanager.yml")
        for route in (settings["route"], settings["route"]["routes"][0]):
            route |= {"group_wait": "1s", "group_interval": "1s"}
        settings["receivers"] = receivers(f"{LOCAL}:{inbox}")
        self.write("alertmanager.yml", settings)
        watching = load("prometheus.yml")
        if speed > 1:
            # Two seconds are also what an answer may take, on a machine that is busy.
            watching["global"] = dict.fromkeys(watching["global"], "2s")
            watching["global"]["evaluation_interval"] = "1s"
        self.write("prometheus.yml", watching)
        self.write("rules.yml", faster(load("rules.yml"), speed))
        there = [{"targets": [f"127.0.0.1:{self.alertmanager}"]}]
        self.write("alertmanagers.yml", there)
        self.write("targets/shop.yml", [{"targets": [f"127.0.0.1:{exporter}"]}])

    def write(self, name: str, content: Any) -> None:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump(content))

    @contextmanager
    def running(self) -> Iterator[Self]:
        folder = self.folder
        with (
            running(
                "prometheus-alertmanager",
                f"--config.file={folder}/alertmanager.yml",
                f"--storage.path={folder}/alertmanager",
                f"--web.listen-address=127.0.0.1:{self.alertmanager}",
                "--cluster.listen-address=",
                log=folder / "alertmanager.log",
            ) as alertmanager,
            running(
                "prometheus",
                f"--config.file={folder}/prometheus.yml",
                f"--storage.tsdb.path={folder}/prometheus",
                f"--web.listen-address=127.0.0.1:{self.prometheus}",
                log=folder / "prometheus.log",
            ) as prometheus,
        ):
            wait_for_port(self.alertmanager, alertmanager)
            wait_for_port(self.prometheus, prometheus)
            yield self

    def ask(self, port: int, path: str) -> Any:
        with urllib.request.urlopen(f"{LOCAL}:{port}/api/{path}") as answer:
            return json.load(answer)

    def knows(self, query: str) -> bool:
        """Return whether Prometheus has a sample for a query."""
        try:
            found = self.ask(self.prometheus, f"v1/query?query={quote(query)}")
        except urllib.error.HTTPError:  # it has only just started
            return False
        return bool(found["data"]["result"])

    def silenced(self, name: str) -> bool:
        """Return whether an alert fires but another one inhibits its notification."""
        return any(
            alert["status"]["inhibitedBy"]
            for alert in self.ask(self.alertmanager, "v2/alerts")
            if alert["labels"]["alertname"] == name
        )

    def wait_for_alert(
        self, name: str, since: float = 0, **labels: str
    ) -> dict[str, Any]:
        """Wait until the operator is notified of an alert."""
        return eventually(lambda: self.shop.find_alert(name, since, **labels), LONG)
