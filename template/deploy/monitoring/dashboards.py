"""Makes the dashboards for Grafana, service.json and security.json: run it.

What a panel shows is said here; where it stands, and what Grafana wants to know
besides, is worked out. Yours are made in Grafana: updates replace what is kept here.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
WIDTH, HEIGHT, IN_A_ROW = 8, 7, 3
SOURCE = {"type": "prometheus", "uid": "prometheus"}
PROBES = 'route!~"/healthz|/readyz"'


@dataclass(frozen=True)
class Panel:
    """A graph, or with `now` the last value alone.

    Args:
        title: what it shows.
        queries: what each line is called, and its expression; SERVICE is filled in.
        unit: one of Grafana's units.
        now: show the last value, in green, and in red from `red_from` on, or below
            `red_below`.
        named: show what it is called, not how much it is.
    """

    title: str
    queries: dict[str, str]
    unit: str = "short"
    now: bool = False
    red_from: float | None = None
    red_below: float | None = None
    named: bool = False


@dataclass(frozen=True)
class Row:
    """Panels under a heading."""

    title: str
    panels: list[Panel]


def requests(window: str, more: str = "") -> str:
    """Return the requests a second that visitors make."""
    chosen = f"SERVICE,{PROBES}{more}"
    return f"sum(rate(http_requests_total{{{chosen}}}[{window}]))"


def slower_than_all_but(share: float) -> str:
    """Return the seconds within which all but a share of requests are answered."""
    buckets = f"http_request_duration_seconds_bucket{{SERVICE,{PROBES}}}"
    return f"histogram_quantile({1 - share:g}, sum by (le) (rate({buckets}[5m])))"


def events(*names: str) -> str:
    """Return how many of some events there were in ten minutes."""
    chosen = f'SERVICE,event=~"{"|".join(names)}"'
    return f"sum by (event) (increase(security_events_total{{{chosen}}}[10m]))"


def recent(suffix: str) -> str:
    """Return one of the gauges of failed sign-ins."""
    return f"sign_in_failures_recent{suffix}{{SERVICE}}"


def age(moment: str) -> str:
    """Return how long ago a moment was."""
    return f"time() - {moment}{{SERVICE}}"


SERVICE = [
    Row(
        "What visitors notice",
        [
            Panel("Traffic", {"requests": requests("5m")}, "reqps"),
            Panel(
                "Errors",
                {
                    "failed": requests("5m", ',status=~"5.."') + " / " + requests("5m"),
                    "refused": requests("5m", ',status=~"4.."')
                    + " / "
                    + requests("5m"),
                },
                "percentunit",
            ),
            Panel(
                "Latency",
                {
                    "half": slower_than_all_but(0.5),
                    "95 of 100": slower_than_all_but(0.05),
                    "99 of 100": slower_than_all_but(0.01),
                },
                "s",
            ),
            Panel(
                "Failures within 30 days; 0.1 % is the budget",
                {
                    "of all requests": requests("30d", ',status=~"5.."')
                    + " / "
                    + requests("30d")
                },
                "percentunit",
                now=True,
                red_from=0.001,
            ),
            Panel(
                "The busiest pages",
                {
                    "{{method}} {{route}}": "topk(5, sum by (method, route) "
                    f"(rate(http_requests_total{{SERVICE,{PROBES}}}[5m])))"
                },
                "reqps",
            ),
            Panel(
                "The pages that take most time",
                {
                    "{{method}} {{route}}": "topk(5, sum by (method, route) (rate"
                    f"(http_request_duration_seconds_sum{{SERVICE,{PROBES}}}[5m])))"
                },
                "percentunit",
            ),
        ],
    ),
    Row(
        "Saturation",
        [
            Panel(
                "Database connections of the process that has most",
                {
                    "in use": "database_pool_in_use{SERVICE}",
                    "there may be": "database_pool_size{SERVICE}",
                },
            ),
            Panel(
                "Mail and jobs that wait",
                {
                    "mails": "mail_waiting{SERVICE}",
                    "mails that failed": "mail_failed{SERVICE}",
                    "jobs": "jobs_waiting{SERVICE}",
                },
            ),
            Panel(
                "Disk that is free",
                {"{{folder}}": "disk_free_ratio{SERVICE}"},
                "percentunit",
            ),
        ],
    ),
    Row(
        "What it is made of",
        [
            Panel(
                "Is up",
                {
                    "web": "web_up{SERVICE}",
                    "metrics": "up{SERVICE}",
                    "database": "database_up{SERVICE}",
                    "limiter": "limiter_up{SERVICE}",
                },
                now=True,
                red_below=1,
            ),
            Panel(
                "Last sign of life of the worker",
                {"ago": age("jobs_heartbeat_timestamp_seconds")},
                "s",
                now=True,
                red_from=300,
            ),
            Panel(
                "Last backup",
                {"ago": age("backup_last_timestamp_seconds")},
                "s",
                now=True,
                red_from=26 * 3600,
            ),
            Panel(
                "Life left to the certificate",
                {"share": "certificate_life_left_ratio{SERVICE}"},
                "percentunit",
                now=True,
                red_below=0.25,
            ),
            Panel(
                "The oldest mail waits for",
                {"time": "mail_oldest_seconds{SERVICE}"},
                "s",
                now=True,
                red_from=900,
            ),
            Panel(
                "What runs",
                {"{{version}} of template {{template}}": "build_info{SERVICE}"},
                now=True,
                named=True,
            ),
        ],
    ),
]

SECURITY = [
    Row(
        "Sign-ins",
        [
            Panel(
                "How far they come, in 10 minutes",
                {
                    "{{step}}": "sum by (step) "
                    "(increase(sign_in_steps_total{SERVICE}[10m]))"
                },
            ),
            Panel(
                "Events, in 10 minutes",
                {
                    "{{event}}": events(
                        "authn_login_success",
                        "authn_login_successafterfail",
                        "authn_login_fail",
                        "authn_login_fail_max",
                        "authn_login_lock",
                    )
                },
            ),
            Panel(
                "Sign-ins without an event",
                {
                    "without": 'sum(sign_in_steps_total{SERVICE,step="done"}) - '
                    "sum(security_events_total{SERVICE,"
                    'event=~"authn_login_success|authn_login_successafterfail"})'
                },
                now=True,
                red_from=1,
            ),
        ],
    ),
    Row(
        "Guesses, of the last 10 minutes",
        [
            Panel(
                "Who is tried, and from where",
                {
                    "failures": recent(""),
                    "accounts": recent("_accounts"),
                    "networks": recent("_networks"),
                },
            ),
            Panel(
                "The most for one",
                {
                    "account": recent("_per_account_max"),
                    "network": recent("_per_network_max"),
                    "second factor": "second_factor_failures_recent_per_account_max"
                    "{SERVICE}",
                },
            ),
            Panel(
                "Second factors, in 10 minutes",
                {
                    "{{event}}": events(
                        "authn_mfa_success",
                        "authn_mfa_fail",
                        "authn_mfa_removed",
                        "authn_recovery_code_used",
                    )
                },
            ),
        ],
    ),
    Row(
        "Who may do what",
        [
            Panel(
                "Refusals and limits, in 10 minutes",
                {"{{event}}": events("authz_fail", "excess_rate_limit_exceeded")},
            ),
            Panel(
                "Changes, in 10 minutes",
                {
                    "{{event}}": events(
                        "authz_change",
                        "authz_admin",
                        "privilege_permissions_changed",
                        "user_created",
                        "user_email_changed",
                        "authn_password_change",
                        "authn_reset_completed",
                        "authn_token_created",
                    )
                },
            ),
            Panel("Administrators", {"people": "administrators{SERVICE}"}, now=True),
        ],
    ),
    Row(
        "The record",
        [
            Panel(
                "The audit trail is whole",
                {"whole": "audit_chain_valid{SERVICE}"},
                now=True,
                red_below=1,
            ),
            Panel(
                "Last check of it",
                {"ago": age("audit_checked_timestamp_seconds")},
                "s",
                now=True,
                red_from=3600,
            ),
            Panel(
                "Rows in it, and log lines that were counted only",
                {
                    "rows": "audit_rows{SERVICE}",
                    "lines": "sum(log_lines_dropped_total{SERVICE})",
                },
            ),
        ],
    ),
]


def dashboard(name: str, title: str, rows: list[Row]) -> dict[str, Any]:
    """Return a dashboard as Grafana reads it."""
    panels: list[dict[str, Any]] = []
    y = 0
    for row in rows:
        panels.append(_place("row", row.title, 0, y, WIDTH * IN_A_ROW, 1))
        y += 1
        for number, panel in enumerate(row.panels):
            down, across = divmod(number, IN_A_ROW)
            top = y + down * HEIGHT
            panels.append(_panel(panel, across * WIDTH, top))
        y += -(-len(row.panels) // IN_A_ROW) * HEIGHT
    for number, made in enumerate(panels, 1):
        made["id"] = number
    return {
        "uid": name,
        "title": title,
        "editable": False,
        "refresh": "30s",
        "schemaVersion": 39,
        "tags": ["service"],
        "time": {"from": "now-6h", "to": "now"},
        "templating": {
            "list": [
                {
                    "name": "service",
                    "label": "Service",
                    "type": "query",
                    "datasource": SOURCE,
                    "query": 'label_values(up{job="service"}, service)',
                    "refresh": 2,
                    "sort": 1,
                }
            ]
        },
        "panels": panels,
    }


def _place(kind: str, title: str, x: int, y: int, w: int, h: int) -> dict[str, Any]:
    return {
        "type": kind,
        "title": title,
        "gridPos": {"x": x, "y": y, "w": w, "h": h},
    }


def _panel(panel: Panel, x: int, y: int) -> dict[str, Any]:
    kind = "stat" if panel.now else "timeseries"
    field: dict[str, Any] = {"unit": panel.unit, "min": 0}
    if panel.now:
        field["color"] = {"mode": "thresholds"}
        field["thresholds"] = {"mode": "absolute", "steps": _steps(panel)}
    chosen = 'job="service",service="$service"'
    return {
        **_place(kind, panel.title, x, y, WIDTH, HEIGHT),
        "datasource": SOURCE,
        "fieldConfig": {"defaults": field, "overrides": []},
        "options": {"textMode": "name"} if panel.named else {},
        "targets": [
            {
                "refId": chr(ord("A") + number),
                "datasource": SOURCE,
                "expr": expression.replace("SERVICE", chosen),
                "legendFormat": legend,
            }
            for number, (legend, expression) in enumerate(panel.queries.items())
        ],
    }


def _steps(panel: Panel) -> list[dict[str, Any]]:
    if panel.red_below is not None:
        return [
            {"color": "red", "value": None},
            {"color": "green", "value": panel.red_below},
        ]
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if panel.red_from is not None:
        steps.append({"color": "red", "value": panel.red_from})
    return steps


DASHBOARDS = {"service": ("Service", SERVICE), "security": ("Security", SECURITY)}


def text(name: str) -> str:
    """Return what the file of a dashboard has to be."""
    title, rows = DASHBOARDS[name]
    return json.dumps(dashboard(name, title, rows), indent=1) + "\n"


if __name__ == "__main__":
    for name in DASHBOARDS:
        (FOLDER / f"{name}.json").write_text(text(name))
