"""Logs and emails of a service as it is deployed."""

import json
import re
import sqlite3
from contextlib import closing
from typing import Any

import pytest

from tests.support.edge import (
    EdgeVisitor,
    Member,
    Site,
)
from tests.support.servers import eventually
from tests.support.visitor import (
    ADDRESS,
    PASSWORD,
)

pytestmark = pytest.mark.needs("nginx")


def test_one_request_id_joins_all_logs(site: Site, visitor: EdgeVisitor) -> None:
    claimed = "a" * 32
    answer = visitor.ask("/test/seen?token=secret", X_Request_ID=claimed)
    request_id = answer.header("X-Request-ID")
    assert request_id != claimed

    def joined(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [line for line in lines if line.get("request_id") == request_id]

    (by_nginx,) = eventually(lambda: joined(site.nginx.requests()))
    (by_service,) = eventually(lambda: joined(site.lines("web")))
    assert (by_nginx["method"], by_nginx["path"]) == ("GET", "/test/seen")
    assert (by_nginx["remote_addr"], by_nginx["status"]) == ("127.0.0.1", "200")
    assert (by_service["route"], by_service["status"]) == ("/test/seen", 200)


def test_every_line_of_the_service_is_one_json_object(
    site: Site, member: Member, visitor: EdgeVisitor
) -> None:
    assert visitor.ask("/test/broken").status == 500
    for log in ("web", "worker"):
        for line in site.lines(log):
            assert {"event", "level", "timestamp"} <= line.keys()
        assert not (site.folder / f"{log}.err").read_text()
    events = [line["event"] for line in site.lines("web")]
    assert any(event.startswith("Starting gunicorn") for event in events)
    assert "request" in events
    fault = [line for line in site.lines("web") if line["level"] == "error"]
    assert fault
    assert all("RuntimeError" in json.dumps(line) for line in fault)


@pytest.mark.parametrize(
    ("kind", "report"),
    [
        ("application/csp-report", {"csp-report": {"effective-directive": "img-src"}}),
        (
            "application/reports+json",
            [{"type": "csp-violation", "body": {"effectiveDirective": "font-src"}}],
        ),
    ],
)
def test_a_report_of_a_browser_reaches_the_log(
    site: Site, visitor: EdgeVisitor, kind: str, report: Any
) -> None:
    where = visitor.ask("/").header("Reporting-Endpoints")
    assert where == 'reports="/browser-reports"'
    sent = json.dumps(report)
    answer = visitor.ask("/browser-reports", "POST", sent, Content_Type=kind)
    assert (answer.status, answer.body) == (204, "")
    request_id = answer.header("X-Request-ID")

    def logged() -> list[dict[str, Any]]:
        lines = [x for x in site.lines("web") if x.get("request_id") == request_id]
        return [line for line in lines if line["event"] == "browser_report"]

    (line,) = eventually(logged)
    assert line["data"]["directive"] in sent
    large = " " * 65 * 1024
    refused = visitor.ask("/browser-reports", "POST", large, Content_Type=kind)
    assert refused.status == 413


def test_no_log_holds_a_secret_or_who_somebody_is(
    site: Site, member: Member, visitor: EdgeVisitor
) -> None:
    assert visitor.ask("/test/broken").status == 500
    assert visitor.ask(f"/login?next=/{ADDRESS}").status == 200
    secrets = [ADDRESS, PASSWORD, member.link.rpartition("/")[2]]
    secrets += member.visitor.cookies.values()
    secrets += re.findall(r"^APP_\w+=(.+)", site.settings.read_text(), re.MULTILINE)
    logged = site.all_that_is_logged()
    assert len(secrets) >= 7
    assert not [secret for secret in secrets if secret in logged]


def test_a_user_signs_up_by_email_and_signs_in(site: Site, member: Member) -> None:
    page = member.visitor.ask("/account")
    assert ADDRESS in page.body
    assert "no-store" in (page.header("Cache-Control") or "")
    with closing(sqlite3.connect(site.service / "instance/production.db")) as database:
        query = "select current_login_ip, confirmed_at is not null from users"
        found = database.execute(f"{query} where email = ?", [ADDRESS]).fetchone()
    assert found == ("127.0.0.1", 1)


def test_a_mail_server_that_is_down_loses_no_account_and_no_email(site: Site) -> None:
    late, visitor = "late@bulwark-tests.net", EdgeVisitor(site.nginx)
    with site.mailbox.away():
        assert visitor.fill_in("/register", email=late).status == 200
        eventually(lambda: "mail_delayed" in (site.folder / "worker").read_text())
        assert not site.mailbox.link_to(late)
    # The worker tries again after ten seconds, then thirty.
    link = eventually(lambda: site.mailbox.link_to(late), patience=90)
    assert visitor.fill_in(link, password=PASSWORD).status == 302
    visitor.fill_in("/login", email=late, password=PASSWORD)
    assert visitor.ask("/account").status == 200
