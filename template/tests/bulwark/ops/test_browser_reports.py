"""Reports of browsers: counted by directive, and bounded whoever sends them."""

import json
from typing import Any

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from bulwark.ops import browser_reports
from bulwark.ops.browser_reports import (
    DIRECTIVES,
    DROPPED,
    EMBEDDER_POLICY,
    EXTENSION,
    MAX_BODY,
    OTHER,
    OVERALL,
    PER_NETWORK,
)
from bulwark.web import headers
from tests.bulwark.conftest import Written
from tests.conftest import Visitor

OLD, NEW = "application/csp-report", "application/reports+json"
SECRET = "J8hq-0s3cr3t_token-in-a-path"
PAGE = f"https://localhost/reset/{SECRET}?code={SECRET}#{SECRET}"
BLOCKED = f"https://ads.example.com:8443/{SECRET}?who={SECRET}"


def new(**changes: Any) -> dict[str, Any]:
    """Return a report as Chromium sends it."""
    body = {
        "documentURL": PAGE,
        "blockedURL": BLOCKED,
        "effectiveDirective": "frame-src",
        "originalPolicy": "default-src 'none'",
        "sample": SECRET,
        "disposition": "enforce",
    }
    return {"type": "csp-violation", "url": PAGE, "age": 1, "body": body | changes}


def old(**changes: Any) -> dict[str, Any]:
    """Return a report in the older format, as Firefox sends it."""
    body = {
        "document-uri": PAGE,
        "blocked-uri": BLOCKED,
        "effective-directive": "frame-src",
        "violated-directive": "frame-src",
        "script-sample": SECRET,
    }
    return {"csp-report": body | changes}


def send(
    visitor: Visitor, sent: Any, mimetype: str = NEW, address: str = "192.0.2.1"
) -> TestResponse:
    data = sent if isinstance(sent, str | bytes) else json.dumps(sent)
    return visitor.client.post(
        headers.REPORTS,
        data=data,
        content_type=mimetype,
        environ_base={"REMOTE_ADDR": address},
    )


def counts(app: Flask) -> dict[str, float]:
    """Return the count of each directive."""
    (metric,) = app.extensions["metrics"].browser_reports.collect()
    return {
        sample.labels["directive"]: sample.value
        for sample in metric.samples
        if sample.name == "browser_reports_total"
    }


def counted(app: Flask, before: dict[str, float]) -> dict[str, float]:
    """Return what was counted since then."""
    now = counts(app)
    return {k: n - before.get(k, 0) for k, n in now.items() if n != before.get(k)}


@pytest.mark.parametrize(
    ("sent", "mimetype"), [([new()], NEW), (new(), NEW), (old(), OLD), ([old()], OLD)]
)
def test_a_violation_gives_a_log_line_and_a_count(
    app: Flask, visitor: Visitor, written: Written, sent: Any, mimetype: str
):
    before = counts(app)
    answer = send(visitor, sent, mimetype)
    assert (answer.status_code, answer.data) == (204, b"")
    assert counted(app, before) == {"frame-src": 1}
    (line,) = [x for x in written.lines() if x["event"] == "browser_report"]
    assert line["data"] == {
        "directive": "frame-src",
        "blocked": "https://ads.example.com:8443",
        "page": "/reset/<token>",
    }
    assert SECRET not in written.getvalue()


@pytest.mark.parametrize(
    ("report", "label"),
    [
        (new(effectiveDirective="script-src-elem"), "script-src-elem"),
        (new(effectiveDirective="trusted-types"), "trusted-types"),
        (new(effectiveDirective="nonsense-src"), OTHER),
        (new(effectiveDirective=["frame-src"]), OTHER),
        (new(effectiveDirective="x" * 5000), OTHER),
        ({"type": "coep", "body": {"blockedURL": BLOCKED}}, EMBEDDER_POLICY),
        ({"type": "deprecation", "body": {}}, OTHER),
        ({"type": "coep"}, EMBEDDER_POLICY),
        ({"csp-report": 1}, OTHER),
        ({"body": [1]}, OTHER),
        ({}, OTHER),
        (new(sourceFile="chrome-extension://abc/x.js"), EXTENSION),
        (new(blockedURL="moz-extension"), EXTENSION),
    ],
)
def test_a_report_is_counted_under_a_known_name(
    app: Flask, visitor: Visitor, report: dict[str, Any], label: str
):
    before = counts(app)
    assert send(visitor, [report]).status_code == 204
    assert counted(app, before) == {label: 1}


@pytest.mark.parametrize(
    ("url", "logged"),
    [
        ("inline", "inline"),
        ("data", "data"),
        ("data:text/html,secret", "data"),
        ("trusted-types-sink", "trusted-types-sink"),
        ("https://user:secret@a.example/secret", "https://a.example"),
        ("https://a.example\nlevel=critical", OTHER),
        ("javascript:secret", OTHER),
        ("https://[::1/secret", OTHER),
        ("https://" + "a" * 300, OTHER),
        ("https://a.example:99999/", OTHER),
        ("\u202egnp.exe", OTHER),
        ("<script>secret</script>", OTHER),
        ("", OTHER),
        (7, OTHER),
    ],
)
def test_only_the_origin_of_what_was_blocked_is_logged(
    visitor: Visitor, written: Written, url: Any, logged: str
):
    assert send(visitor, [new(blockedURL=url)]).status_code == 204
    (line,) = [x for x in written.lines() if x["event"] == "browser_report"]
    assert line["data"]["blocked"] == logged
    assert "secret" not in written.getvalue()


@pytest.mark.parametrize("page", ["/nowhere/" + SECRET, "::", "https://[x", 7])
def test_a_page_that_does_not_exist_is_not_quoted(
    visitor: Visitor, written: Written, page: Any
):
    assert send(visitor, [new(documentURL=page)]).status_code == 204
    (line,) = [x for x in written.lines() if x["event"] == "browser_report"]
    assert line["data"]["page"] == OTHER if isinstance(page, str) else "/reset/<token>"


@pytest.mark.parametrize(
    ("sent", "mimetype", "status"),
    [
        ("{}", "application/json", 415),
        ("{}", "text/plain", 415),
        ("a=b", "application/x-www-form-urlencoded", 415),
        ("", NEW, 400),
        ("{", NEW, 400),
        ("[" * 30_000, NEW, 400),
        ("null", NEW, 400),
        ("7", OLD, 400),
        ('[["frame-src"]]', NEW, 400),
        (b'{"csp-report": "\xff"}', OLD, 400),
        (" " * (MAX_BODY + 1), NEW, 413),
    ],
)
def test_what_is_no_report_is_refused_and_not_repeated(
    app: Flask, visitor: Visitor, sent: Any, mimetype: str, status: int
):
    before = counts(app)
    answer = send(visitor, sent, mimetype)
    assert answer.status_code == status
    assert "frame-src" not in answer.text
    assert counted(app, before) == {}


def test_a_network_can_not_flood_the_log(
    app: Flask, visitor: Visitor, written: Written
):
    before = counts(app)
    batch = [new()] * 100
    for _ in range(3):
        assert send(visitor, batch).status_code == 204
    allowed = PER_NETWORK.amount
    lines = [x for x in written.lines() if x["event"] == "browser_report"]
    assert len(lines) == allowed
    assert counted(app, before) == {"frame-src": allowed, DROPPED: 3}
    assert send(visitor, [new()], address="198.51.100.1").status_code == 204
    assert counted(app, before)["frame-src"] == allowed + 1
    assert "excess_rate_limit_exceeded" not in written.getvalue()


def test_all_networks_together_can_not_flood_it_either(
    app: Flask, visitor: Visitor, monkeypatch: pytest.MonkeyPatch
):
    assert OVERALL.amount == 10 * PER_NETWORK.amount
    few = type(OVERALL)(3, 1)
    monkeypatch.setattr(browser_reports, "OVERALL", few)
    before = counts(app)
    for number in range(5):
        send(visitor, [new()], address=f"192.0.{number}.1")
    assert counted(app, before) == {"frame-src": 3, DROPPED: 2}


def test_every_directive_of_the_policy_can_be_counted(app: Flask):
    policy = {name for name in headers.CSP if not name.startswith("report-")}
    assert policy <= DIRECTIVES
    assert DIRECTIVES | {EMBEDDER_POLICY, EXTENSION, OTHER, DROPPED} == set(counts(app))
