"""Generates the Grafana dashboards service.json and security.json, which services ship:

python -m tests.support.monitoring.dashboards
"""

import json

from tests.support.chain import MONITORING
from tests.support.monitoring.grafana import Panel, Row, dashboard

PROBES = 'route!~"/healthz|/readyz"'


def requests(window: str, more: str = "") -> str:
    """Return the query for visitors' requests per second."""
    chosen = f"SERVICE,{PROBES}{more}"
    return f"sum(rate(http_requests_total{{{chosen}}}[{window}]))"


def slower_than_all_but(share: float) -> str:
    """Return the query for the response time that only this share exceeds."""
    buckets = f"http_request_duration_seconds_bucket{{SERVICE,{PROBES}}}"
    return f"histogram_quantile({1 - share:g}, sum by (le) (rate({buckets}[5m])))"


def events(*names: str) -> str:
    """Return the query for the number of some events in ten minutes."""
    chosen = f'SERVICE,event=~"{"|".join(names)}"'
    return f"sum by (event) (increase(security_events_total{{{chosen}}}[10m]))"


def recent(suffix: str) -> str:
    """Return the query for one of the gauges of failed sign-ins."""
    return f"sign_in_failures_recent{suffix}{{SERVICE}}"


def age(moment: str) -> str:
    """Return the query for the time since a timestamp."""
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
                    "median": slower_than_all_but(0.5),
                    "95th percentile": slower_than_all_but(0.05),
                    "99th percentile": slower_than_all_but(0.01),
                },
                "s",
            ),
            Panel(
                "Failed requests in 30 days; the budget is 0.1 %",
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
                "Busiest pages",
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
                "Database connections of the busiest process",
                {
                    "in use": "database_pool_in_use{SERVICE}",
                    "maximum": "database_pool_size{SERVICE}",
                },
            ),
            Panel(
                "Queued email and jobs",
                {
                    "emails": "mail_waiting{SERVICE}",
                    "failed emails": "mail_failed{SERVICE}",
                    "jobs": "jobs_waiting{SERVICE}",
                    "failed jobs": "jobs_failed{SERVICE}",
                },
            ),
            Panel(
                "Free disk space",
                {"{{folder}}": "disk_free_ratio{SERVICE}"},
                "percentunit",
            ),
        ],
    ),
    Row(
        "Components",
        [
            Panel(
                "Up",
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
                "Last heartbeat of the worker",
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
                "Last restore drill that passed",
                {"ago": age("restore_drill_last_timestamp_seconds")},
                "s",
                now=True,
                red_from=40 * 86400,
            ),
            Panel(
                "Duration of the last restore drill",
                {"time": "restore_drill_duration_seconds{SERVICE}"},
                "s",
                now=True,
            ),
            Panel(
                "Remaining lifetime of the certificate",
                {"share": "certificate_life_left_ratio{SERVICE}"},
                "percentunit",
                now=True,
                red_below=0.25,
            ),
            Panel(
                "Oldest queued email waits for",
                {"time": "mail_oldest_seconds{SERVICE}"},
                "s",
                now=True,
                red_from=900,
            ),
            Panel(
                "Version",
                {"{{version}}, template {{template}}": "build_info{SERVICE}"},
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
                "Steps, in 10 minutes",
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
        "Guesses, in the last 10 minutes",
        [
            Panel(
                "Failures, accounts and networks",
                {
                    "failures": recent(""),
                    "accounts": recent("_accounts"),
                    "networks": recent("_networks"),
                },
            ),
            Panel(
                "Maximum for one",
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
        "Access",
        [
            Panel(
                "Denied and rate-limited requests, in 10 minutes",
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
            Panel(
                "Blocked by browsers, in 10 minutes",
                {
                    "{{directive}}": "sum by (directive) "
                    "(increase(browser_reports_total{SERVICE}[10m]))"
                },
            ),
            Panel("Administrators", {"users": "administrators{SERVICE}"}, now=True),
        ],
    ),
    Row(
        "Audit trail and log",
        [
            Panel(
                "Audit trail intact",
                {"intact": "audit_chain_valid{SERVICE}"},
                now=True,
                red_below=1,
            ),
            Panel(
                "Last check of the audit trail",
                {"ago": age("audit_checked_timestamp_seconds")},
                "s",
                now=True,
                red_from=3600,
            ),
            Panel(
                "Rows of the audit trail, and dropped log lines",
                {
                    "rows": "audit_rows{SERVICE}",
                    "dropped lines": "sum(log_lines_dropped_total{SERVICE})",
                },
            ),
        ],
    ),
]


DASHBOARDS = {"service": ("Service", SERVICE), "security": ("Security", SECURITY)}


def text(name: str) -> str:
    """Return the content of a dashboard's file."""
    title, rows = DASHBOARDS[name]
    return json.dumps(dashboard(name, title, rows), indent=1) + "\n"


if __name__ == "__main__":
    for name in DASHBOARDS:
        (MONITORING / f"{name}.json").write_text(text(name))
