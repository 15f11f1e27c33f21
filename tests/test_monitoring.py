"""Monitoring: what sets alerts off, who is told, and what the dashboards ask for."""

import http.server
import json
import os
import re
import runpy
import shutil
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import pytest
import yaml

from tests.conftest import ROOT, Make, run
from tests.servers import eventually, free_port, running, wait_for_port

MONITORING = ROOT / "template/deploy/monitoring"
LOCAL = "http://127.0.0.1"
needs_prometheus = pytest.mark.needs("prometheus")
needs_alertmanager = pytest.mark.needs("prometheus-alertmanager")

# What `flask metrics` tells, and Prometheus of itself.
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
    *("mail_waiting", "mail_oldest_seconds", "mail_failed", "jobs_waiting"),
    "jobs_heartbeat_timestamp_seconds",
    "certificate_life_left_ratio",
    "certificate_expires_timestamp_seconds",
    "backup_last_timestamp_seconds",
    *("audit_chain_valid", "audit_checked_timestamp_seconds", "audit_rows"),
    *("disk_free_ratio", "log_lines_dropped_total", "build_info", "administrators"),
    "up",
}
# What looks like the name of a metric in an expression and is none.
WORDS = {"and", "or", "unless", "offset", "bool", "by", "without", "on", "ignoring"}


def load(name: str) -> Any:
    return yaml.safe_load((MONITORING / name).read_text())


def rules() -> list[dict[str, Any]]:
    (group,) = load("rules.yml")["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


def names_in(expression: str) -> set[str]:
    """Return the metrics that an expression asks for."""
    bare = re.sub(r"\{[^}]*\}|\[[^]]*\]|\"[^\"]*\"", " ", expression)
    bare = re.sub(r"\b(?:by|without|on|ignoring) *\([^)]*\)", " ", bare)
    bare = re.sub(r"\boffset +\w+", " ", bare)
    found = re.findall(r"(?<![\w.])([a-zA-Z_:][\w:]*)(?! *\()\b(?! *\()", bare)
    return set(found) - WORDS


def panels() -> list[tuple[str, str]]:
    """Return title and expression of all that is in the dashboards."""
    made = [load(f"{name}.json") for name in ("service", "security")]
    return [
        (panel["title"], target["expr"].replace("$service", "shop"))
        for dashboard in made
        for panel in dashboard["panels"]
        for target in panel.get("targets", ())
    ]


# --- Rules ----------------------------------------------------------------------------


@needs_prometheus
def test_prometheus_takes_the_rules_and_each_fires_when_it_should() -> None:
    run("promtool", "check", "rules", "--lint-fatal", "rules.yml", cwd=MONITORING)
    run("promtool", "test", "rules", "rules.test.yml", cwd=MONITORING)


@needs_prometheus
@pytest.mark.parametrize("number", range(len(alerts())))
def test_without_an_alert_its_own_test_fails(number: int, tmp_path: Path) -> None:
    """So no test passes whatever the rules are."""
    content = load("rules.yml")
    left_out = alerts()[number]
    content["groups"][0]["rules"].remove(left_out)
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(content))
    tests = load("rules.test.yml")
    tests["tests"] = [
        test
        for test in tests["tests"]
        if f'alertname="{left_out["alert"]}"' in json.dumps(test).replace("\\", "")
    ]
    assert tests["tests"], f"no test has {left_out['alert']} fire"
    (tmp_path / "test.yml").write_text(yaml.safe_dump(tests))
    done = subprocess.run(
        ["promtool", "test", "rules", "test.yml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert f'alertname="{left_out["alert"]}"' in done.stderr + done.stdout


@pytest.mark.parametrize("name", sorted({alert["alert"] for alert in alerts()}))
def test_an_alert_has_a_test_that_it_fires_and_one_that_it_does_not(name: str) -> None:
    titles = [test["name"] for test in load("rules.test.yml")["tests"]]
    titles = [title for title in titles if name in title]
    assert [title for title in titles if "not fire" in title]
    assert [title for title in titles if "not fire" not in title]


def test_an_alert_says_how_urgent_it_is_and_what_to_do() -> None:
    for alert in alerts():
        assert alert["labels"]["severity"] in {"page", "ticket"}
        assert alert["labels"]["kind"]
        assert alert["annotations"]["summary"].startswith("{{ $labels.service }}: ")
        anchor = f"docs/runbooks.md#{alert['alert'].lower()}"
        assert alert["annotations"]["runbook"] == anchor


def test_each_alert_has_a_section_in_the_runbooks_and_each_section_an_alert() -> None:
    text = (ROOT / "template/docs/runbooks.md").read_text()
    head, *sections = re.split(r"^## ", text, flags=re.MULTILINE)
    assert head
    found = {section.splitlines()[0]: section for section in sections}
    assert found.keys() == {alert["alert"] for alert in alerts()}
    for name, section in found.items():
        for part in ("Means", "Look", "Do", "False alarm"):
            assert f"**{part}**: " in section, (name, part)


def test_rules_and_dashboards_ask_for_metrics_that_there_are() -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    asked = {name for rule in rules() for name in names_in(rule["expr"])}
    shown = {name for _, expression in panels() for name in names_in(expression)}
    assert asked - recorded <= METRICS
    assert recorded <= asked, "recorded for nobody"
    assert shown <= METRICS
    assert METRICS - shown - asked <= {
        "http_request_duration_seconds_count",
        "certificate_expires_timestamp_seconds",
    }


def test_events_that_rules_and_dashboards_name_are_in_the_catalogue() -> None:
    catalogue = (ROOT / "template/bulwark/events.py").read_text()
    known = set(re.findall(r'^    "(\w+)": Kind\(', catalogue, re.MULTILINE))
    said = [rule["expr"] for rule in rules()] + [expr for _, expr in panels()]
    named = {
        name
        for expression in said
        for names in re.findall(r'event=~?"([^"]+)"', expression)
        for name in names.split("|")
    }
    assert len(named) > 10
    assert named <= known


# --- Who is told ----------------------------------------------------------------------


def together(folder: Path, receivers: str = "receivers.example.yml") -> Path:
    """Put Alertmanager's configuration together as compose.yaml and install do."""
    parts = [
        (MONITORING / part).read_text() for part in ("alertmanager.yml", receivers)
    ]
    made = folder / "alertmanager.yml"
    made.write_text("".join(parts))
    return made


@needs_alertmanager
def test_a_page_and_a_ticket_go_to_their_receivers(tmp_path: Path) -> None:
    made = together(tmp_path)
    run("amtool", "check-config", made, cwd=tmp_path)
    for alert in alerts():
        severity = alert["labels"]["severity"]
        labels = [f"alertname={alert['alert']}", "service=shop"]
        labels += [f"{name}={value}" for name, value in alert["labels"].items()]
        route = ("amtool", "config", "routes", "test", f"--config.file={made}")
        run(*route, f"--verify.receivers={severity}", *labels, cwd=tmp_path)
    wrong = (*route, "--verify.receivers=page", "severity=ticket")
    with pytest.raises(AssertionError, match="ticket"):
        run(*wrong, cwd=tmp_path)


@needs_prometheus
def test_prometheus_takes_its_configuration_and_the_teams_rules(tmp_path: Path) -> None:
    for name in ("prometheus.yml", "rules.yml", "alertmanagers.yml"):
        shutil.copy(MONITORING / name, tmp_path)
    readme = (ROOT / "template/app/alerts/README.md").read_text()
    (example,) = re.findall(r"```yaml\n(.*?)```", readme, re.DOTALL)
    for folder in ("alerts", "targets"):
        (tmp_path / folder).mkdir()
    (tmp_path / "alerts/orders.yml").write_text(example)
    shutil.copy(MONITORING / "targets.yml", tmp_path / "targets/shop.yml")
    said = run("promtool", "check", "config", "prometheus.yml", cwd=tmp_path)
    assert "2 rule files found" in said
    assert "WARNING" not in said
    (tmp_path / "alerts/orders.yml").write_text(example.replace("== 0", "=="))
    with pytest.raises(AssertionError, match=r"orders\.yml"):
        run("promtool", "check", "config", "prometheus.yml", cwd=tmp_path)


# --- Dashboards -----------------------------------------------------------------------


def test_dashboards_are_what_their_code_makes() -> None:
    made = runpy.run_path(str(MONITORING / "dashboards.py"))
    assert made["DASHBOARDS"].keys() == {"service", "security"}
    for name in made["DASHBOARDS"]:
        assert (MONITORING / f"{name}.json").read_text() == made["text"](name), (
            "run template/deploy/monitoring/dashboards.py"
        )


def test_panels_of_a_dashboard_neither_overlap_nor_leave_the_page() -> None:
    for name in ("service", "security"):
        dashboard = load(f"{name}.json")
        taken: set[tuple[int, int]] = set()
        for panel in dashboard["panels"]:
            at = panel["gridPos"]
            cells = {
                (x, y)
                for x in range(at["x"], at["x"] + at["w"])
                for y in range(at["y"], at["y"] + at["h"])
            }
            assert not cells & taken, panel["title"]
            assert max(x for x, _ in cells) < 24
            taken |= cells
        numbers = [panel["id"] for panel in dashboard["panels"]]
        assert len(set(numbers)) == len(numbers)
        uids = {p["datasource"]["uid"] for p in dashboard["panels"] if "targets" in p}
        assert uids == {
            source["uid"] for source in load("datasource.yml")["datasources"]
        }


@needs_prometheus
def test_prometheus_understands_what_each_panel_asks(tmp_path: Path) -> None:
    queries = [
        {"record": f"panel:{number}:{title.count('')}", "expr": expression}
        for number, (title, expression) in enumerate(panels())
    ]
    rule_file = {"groups": [{"name": "panels", "rules": queries}]}
    (tmp_path / "panels.yml").write_text(yaml.safe_dump(rule_file))
    said = run("promtool", "check", "rules", "panels.yml", cwd=tmp_path)
    assert f"{len(queries)} rules found" in said


# --- A real chain ---------------------------------------------------------------------


class Shop:
    """What a service tells Prometheus, and what Alertmanager tells those who listen."""

    def __init__(self) -> None:
        self.metrics = {"up_and_well": 1.0}
        self.told: list[dict[str, Any]] = []
        shop = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                lines = [f"{name} {value}\n" for name, value in shop.metrics.items()]
                self.answer("".join(lines).encode())

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                message = json.loads(body)
                for alert in message["alerts"]:
                    shop.told.append({"to": self.path, **alert})
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

    def heard(
        self, name: str, since: float = 0, **labels: str
    ) -> dict[str, Any] | None:
        """Return what was told of an alert that began since a moment."""
        wanted = {"alertname": name, **labels}
        for alert in self.told:
            begun = datetime.fromisoformat(alert["startsAt"]).timestamp()
            if alert["labels"].items() >= wanted.items() and begun >= since:
                return alert
        return None


def receivers(listening: str) -> list[dict[str, Any]]:
    """Return who is told, where a `Shop` listens."""
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
            watching["global"] = dict.fromkeys(watching["global"], "1s")
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
        """Tell whether Prometheus has a sample for a query."""
        try:
            found = self.ask(self.prometheus, f"v1/query?query={quote(query)}")
        except urllib.error.HTTPError:  # it has only just started
            return False
        return bool(found["data"]["result"])

    def silenced(self, name: str) -> bool:
        """Tell whether an alert fires and nobody is told because of another one."""
        return any(
            alert["status"]["inhibitedBy"]
            for alert in self.ask(self.alertmanager, "v2/alerts")
            if alert["labels"]["alertname"] == name
        )

    def told(self, name: str, since: float = 0, **labels: str) -> dict[str, Any]:
        """Wait until somebody is told of an alert."""
        return eventually(lambda: self.shop.heard(name, since, **labels))


@needs_prometheus
@needs_alertmanager
def test_an_attack_is_told_and_a_page_silences_what_it_explains(tmp_path: Path) -> None:
    shop, exporter = Shop(), free_port()
    heartbeat = "jobs_heartbeat_timestamp_seconds"
    shop.metrics = {
        "sign_in_failures_recent_per_network_max": 3,
        "sign_in_failures_recent_networks": 3,
        'security_events_total{event="authn_login_success"}': 9,
        heartbeat: time.time() + 3600,
    }
    with (
        shop.open() as inbox,
        Chain(tmp_path, shop, inbox, exporter).running() as chain,
    ):
        with shop.open(exporter):
            ordinary = "count_over_time(sign_in_failures_recent_networks[1m]) > 5"
            eventually(lambda: chain.knows(ordinary))
            assert not shop.told

            shop.metrics["sign_in_failures_recent_per_network_max"] = 31
            ticket = chain.told("BruteForce")
            assert ticket["to"] == "/ticket"
            assert ticket["labels"]["service"] == "shop"
            assert ticket["annotations"]["summary"].startswith("shop: one network")
            assert not chain.silenced("BruteForce")

            shop.metrics["sign_in_failures_recent_networks"] = 200
            page = chain.told("CredentialStuffing")
            assert page["to"] == "/page"
            assert "from 200 networks" in page["annotations"]["summary"]
            eventually(lambda: chain.silenced("BruteForce"))
            assert not chain.silenced("CredentialStuffing")

            shop.metrics |= {"database_up": 0, heartbeat: 0}
            assert chain.told("DatabaseDown")["to"] == "/page"
            eventually(lambda: chain.silenced("WorkerGone"))
        assert chain.told("TargetDown")["to"] == "/page"
        assert not chain.silenced("TargetDown")


# --- What install does ----------------------------------------------------------------


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may install")
@needs_prometheus
@needs_alertmanager
class TestInstall:
    @pytest.fixture
    def service(self, make: Make, tmp_path: Path) -> Path:
        (tmp_path / "etc/prometheus").mkdir(parents=True)
        service = make(project_slug="shop")
        readme = (service / "app/alerts/README.md").read_text()
        (example,) = re.findall(r"```yaml\n(.*?)```", readme, re.DOTALL)
        (service / "app/alerts/orders.yml").write_text(example)
        return service

    def install(
        self, service: Path, *arguments: str | Path
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [service / "deploy/monitoring/install", *arguments],
            env=os.environ | {"MONITORING_ETC": str(service.parent / "etc")},
            capture_output=True,
            text=True,
            check=False,
        )

    def test_it_puts_everything_in_place_and_does_so_again(self, service: Path) -> None:
        etc = service.parent / "etc"
        example = service / "deploy/monitoring/receivers.example.yml"
        done = self.install(service, example)
        assert done.returncode == 0, done.stderr
        place = etc / "prometheus/services"
        (place / "targets/other.yml").write_text("- targets: ['127.0.0.1:9465']\n")
        (place / "alerts/shop-two@mine.yml").write_text("groups: []\n")
        (service / "app/alerts/orders.yml").rename(service / "app/alerts/more.yml")
        done = self.install(service)
        assert done.returncode == 0, done.stderr
        assert {str(p.relative_to(place)) for p in place.rglob("*.yml")} == {
            *("prometheus.yml", "rules.yml", "alertmanager.yml", "alertmanagers.yml"),
            *("targets/shop.yml", "targets/other.yml"),
            *("alerts/shop@more.yml", "alerts/shop-two@mine.yml"),
        }
        assert "127.0.0.1:9464" in (place / "targets/shop.yml").read_text()
        told = place / "alertmanager.yml"
        assert (told.stat().st_mode & 0o777, told.group()) == (0o640, "prometheus")
        kept = etc / "shop/receivers.yml"
        assert kept.stat().st_mode & 0o777 == 0o600
        assert not list((etc / "prometheus").glob(".services-*"))

    def test_both_listen_on_this_machine_alone(self, service: Path) -> None:
        example = service / "deploy/monitoring/receivers.example.yml"
        assert self.install(service, example).returncode == 0
        units = service.parent / "etc/systemd/system"
        said = "".join(path.read_text() for path in units.rglob("services.conf"))
        assert said.count("--web.listen-address=127.0.0.1:") == 2
        assert "--cluster.listen-address=\n" in said

    def test_it_asks_for_the_other_place_of_the_metrics(self, service: Path) -> None:
        etc = service.parent / "etc"
        (etc / "shop").mkdir()
        (etc / "shop/env.production").write_text("APP_METRICS_BIND=127.0.0.1:9999\n")
        example = service / "deploy/monitoring/receivers.example.yml"
        assert self.install(service, example).returncode == 0
        targets = etc / "prometheus/services/targets/shop.yml"
        assert yaml.safe_load(targets.read_text()) == [{"targets": ["127.0.0.1:9999"]}]

    def test_what_would_be_refused_changes_nothing_and_says_why(
        self, service: Path
    ) -> None:
        etc = service.parent / "etc"
        nobody = self.install(service, etc / "missing.yml")
        assert nobody.returncode == 1
        assert "There is nobody to tell" in nobody.stderr
        example = service / "deploy/monitoring/receivers.example.yml"
        assert self.install(service, example).returncode == 0
        place = etc / "prometheus/services"
        before = {p: p.read_bytes() for p in etc.rglob("*") if p.is_file()}

        one = etc.parent / "one.yml"
        one.write_text(example.read_text().replace("name: page", "name: somebody"))
        refused = self.install(service, one)
        assert refused.returncode == 1
        assert "Alertmanager refuses" in refused.stderr
        assert "page and ticket" in refused.stderr
        (service / "app/alerts/orders.yml").write_text("groups: nothing\n")
        refused = self.install(service)
        assert refused.returncode == 1
        assert "shop@orders.yml" in refused.stderr
        assert {p: p.read_bytes() for p in etc.rglob("*") if p.is_file()} == before
        assert place.is_dir()

    def test_the_configuration_of_somebody_else_is_left_alone(
        self, service: Path
    ) -> None:
        own = service.parent / "etc/prometheus/prometheus.yml"
        own.write_text("global: {}\n")
        example = service / "deploy/monitoring/receivers.example.yml"
        done = self.install(service, example)
        assert done.returncode == 1
        assert "was changed by somebody" in done.stderr
        assert list(own.parent.iterdir()) == [own]
        shutil.copy("/etc/prometheus/prometheus.yml", own)
        assert self.install(service, example).returncode == 0


def test_shellcheck_finds_nothing() -> None:
    run("shellcheck", "install", cwd=MONITORING)
