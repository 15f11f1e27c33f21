"""Monitoring: when alerts fire, who receives them, and what the dashboards query."""

import json
import math
import os
import re
import runpy
import shutil
import subprocess
import time
from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from copier import run_copy

from tests.conftest import ROOT, run
from tests.support.chain import METRICS, MONITORING, Chain, Shop, alerts, load, rules
from tests.support.monitoring import dashboards
from tests.support.servers import eventually, free_port

needs_prometheus = pytest.mark.needs("prometheus")
needs_alertmanager = pytest.mark.needs("prometheus-alertmanager")

RULE_TESTS = ROOT / "tests/support/monitoring/rules.test.yml"
# What looks like the name of a metric in an expression and is none.
WORDS = {"and", "or", "unless", "offset", "bool", "by", "without", "on", "ignoring"}


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

# The last comparison of an alert's expression, and what the overview compares with.
THRESHOLDS = {
    "AuditCheckStale": "AUDIT_CHECK_AGE",
    "BackupFailing": "BACKUP_AGE",
    "CertificateQuarterLeft": "LEAST_CERTIFICATE_LIFE",
    "KeyOld": "KEY_AGE",
    "RestoreDrillOverdue": "DRILL_AGE",
    "MailQueueStuck": "QUEUED_MAIL_AGE",
    "WorkerGone": "HEARTBEAT_AGE",
}


@pytest.mark.parametrize("name", THRESHOLDS)
def test_an_alert_fires_when_the_overview_warns(name: str) -> None:
    shared = runpy.run_path(str(ROOT / "template/bulwark/ops/thresholds.py"))
    value = shared[THRESHOLDS[name]]
    expected = value.total_seconds() if isinstance(value, timedelta) else value
    (alert,) = [alert for alert in alerts() if alert["alert"] == name]
    compared = re.search(r"[<>] ([\d.* ]+)$", alert["expr"].strip())
    assert compared
    assert math.prod(map(float, compared[1].split("*"))) == expected


@needs_prometheus
def test_prometheus_takes_the_rules_and_each_fires_when_it_should() -> None:
    run("promtool", "check", "rules", "--lint-fatal", "rules.yml", cwd=MONITORING)
    run("promtool", "test", "rules", RULE_TESTS.name, cwd=RULE_TESTS.parent)


@needs_prometheus
@pytest.mark.parametrize("number", range(len(alerts())))
def test_without_an_alert_its_own_test_fails(number: int, tmp_path: Path) -> None:
    """So no test passes whatever the rules are."""
    content = load("rules.yml")
    left_out = alerts()[number]
    content["groups"][0]["rules"].remove(left_out)
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(content))
    tests = yaml.safe_load(RULE_TESTS.read_text())
    tests["rule_files"] = ["rules.yml"]
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
    tests = yaml.safe_load(RULE_TESTS.read_text())["tests"]
    titles = [test["name"] for test in tests]
    titles = [title for title in titles if name in title]
    assert [title for title in titles if "not fire" in title]
    assert [title for title in titles if "not fire" not in title]


def test_an_alert_has_a_severity_and_a_runbook() -> None:
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
    queried = {name for rule in rules() for name in names_in(rule["expr"])}
    shown = {name for _, expression in panels() for name in names_in(expression)}
    assert queried - recorded <= METRICS
    assert recorded <= queried, "recorded but not used"
    assert shown <= METRICS
    assert METRICS - shown - queried <= {
        "http_request_duration_seconds_count",
        "certificate_expires_timestamp_seconds",
    }


def test_events_that_rules_and_dashboards_name_are_in_the_catalogue() -> None:
    catalogue = (ROOT / "template/bulwark/audit/catalogue.py").read_text()
    known = set(re.findall(r'^    "(\w+)": Kind\(', catalogue, re.MULTILINE))
    expressions = [rule["expr"] for rule in rules()] + [expr for _, expr in panels()]
    named = {
        name
        for expression in expressions
        for names in re.findall(r'event=~?"([^"]+)"', expression)
        for name in names.split("|")
    }
    assert len(named) > 10
    assert named <= known


# --- Who receives alerts --------------------------------------------------------------


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
    output = run("promtool", "check", "config", "prometheus.yml", cwd=tmp_path)
    assert "2 rule files found" in output
    assert "WARNING" not in output
    (tmp_path / "alerts/orders.yml").write_text(example.replace("== 0", "=="))
    with pytest.raises(AssertionError, match=r"orders\.yml"):
        run("promtool", "check", "config", "prometheus.yml", cwd=tmp_path)


# --- Dashboards -----------------------------------------------------------------------


def test_dashboards_are_what_their_code_makes() -> None:
    assert dashboards.DASHBOARDS.keys() == {"service", "security"}
    for name in dashboards.DASHBOARDS:
        assert (MONITORING / f"{name}.json").read_text() == dashboards.text(name), (
            "run python -m tests.support.monitoring.dashboards"
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
    output = run("promtool", "check", "rules", "panels.yml", cwd=tmp_path)
    assert f"{len(queries)} rules found" in output


# --- A real chain ---------------------------------------------------------------------


@needs_prometheus
@needs_alertmanager
def test_an_attack_raises_an_alert_and_a_page_silences_what_it_explains(
    tmp_path: Path,
) -> None:
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
            ordinary = "count_over_time(sign_in_failures_recent_networks[1m]) > 3"
            eventually(lambda: chain.knows(ordinary))
            assert not shop.alerts

            shop.metrics["sign_in_failures_recent_per_network_max"] = 31
            ticket = chain.wait_for_alert("BruteForce")
            assert ticket["to"] == "/ticket"
            assert ticket["labels"]["service"] == "shop"
            assert ticket["annotations"]["summary"].startswith("shop: one network")
            assert not chain.silenced("BruteForce")

            shop.metrics["sign_in_failures_recent_networks"] = 200
            page = chain.wait_for_alert("CredentialStuffing")
            assert page["to"] == "/page"
            assert "from 200 networks" in page["annotations"]["summary"]
            eventually(lambda: chain.silenced("BruteForce"))
            assert not chain.silenced("CredentialStuffing")

            shop.metrics |= {"database_up": 0, heartbeat: 0}
            assert chain.wait_for_alert("DatabaseDown")["to"] == "/page"
            eventually(lambda: chain.silenced("WorkerGone"))
        assert chain.wait_for_alert("TargetDown")["to"] == "/page"
        assert not chain.silenced("TargetDown")


# --- What install does ----------------------------------------------------------------


@pytest.fixture(scope="class")
def made(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("monitoring") / "service"
    answers = {"project_slug": "shop"}
    run_copy(str(template), made, answers, defaults=True, quiet=True, unsafe=True)
    return made


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may install")
@needs_prometheus
@needs_alertmanager
class TestInstall:
    @pytest.fixture
    def service(self, made: Path, tmp_path: Path) -> Path:
        (tmp_path / "etc/prometheus").mkdir(parents=True)
        service = Path(shutil.copytree(made, tmp_path / "service", symlinks=True))
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
        config = place / "alertmanager.yml"
        assert (config.stat().st_mode & 0o777, config.group()) == (0o640, "prometheus")
        receivers = etc / "shop/receivers.yml"
        assert receivers.stat().st_mode & 0o777 == 0o600
        assert not list((etc / "prometheus").glob(".services-*"))

    def test_both_listen_on_this_machine_alone(self, service: Path) -> None:
        example = service / "deploy/monitoring/receivers.example.yml"
        assert self.install(service, example).returncode == 0
        units = service.parent / "etc/systemd/system"
        output = "".join(path.read_text() for path in units.rglob("services.conf"))
        assert output.count("--web.listen-address=127.0.0.1:") == 2
        assert "--cluster.listen-address=\n" in output

    @pytest.mark.parametrize(
        ("written", "target"),
        [
            ("APP_METRICS_BIND=127.0.0.1:9999", "127.0.0.1:9999"),
            ('APP_METRICS_BIND="127.0.0.1:9999"\r', "127.0.0.1:9999"),
            ("APP_METRICS_BIND=[::1]:9464", "[::1]:9464"),
            ("\ufeffAPP_METRICS_BIND=127.0.0.1:9999", "127.0.0.1:9999"),
            ("  APP_METRICS_BIND=127.0.0.1:9999 ", "127.0.0.1:9999"),
        ],
    )
    def test_it_asks_for_the_other_place_of_the_metrics(
        self, service: Path, written: str, target: str
    ) -> None:
        etc = service.parent / "etc"
        (etc / "shop").mkdir()
        (etc / "shop/env.production").write_bytes(f"{written}\n".encode())
        example = service / "deploy/monitoring/receivers.example.yml"
        assert self.install(service, example).returncode == 0
        targets = etc / "prometheus/services/targets/shop.yml"
        assert yaml.safe_load(targets.read_text()) == [{"targets": [target]}]

    def test_what_would_be_refused_changes_nothing_and_is_explained(
        self, service: Path
    ) -> None:
        etc = service.parent / "etc"
        done = self.install(service, etc / "missing.yml")
        assert done.returncode == 1
        assert "There are no receivers" in done.stderr
        example = service / "deploy/monitoring/receivers.example.yml"
        assert self.install(service, example).returncode == 0
        place = etc / "prometheus/services"
        before = {p: p.read_bytes() for p in etc.rglob("*") if p.is_file()}

        one = etc.parent / "one.yml"
        one.write_text(example.read_text().replace("name: page", "name: somebody"))
        refused = self.install(service, one)
        assert refused.returncode == 1
        assert "Alertmanager rejected" in refused.stderr
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
        assert "was changed, so this server" in done.stderr
        assert list(own.parent.iterdir()) == [own]
        shutil.copy("/etc/prometheus/prometheus.yml", own)
        assert self.install(service, example).returncode == 0
