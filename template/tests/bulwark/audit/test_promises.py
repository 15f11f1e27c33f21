"""Promises that a team gives up: declared with a reason, and shown."""

import re

import pytest
from flask import Flask

from bulwark import settings
from bulwark.audit import promises
from bulwark.settings import ConfigurationError
from tests.bulwark.conftest import Written
from tests.conftest import ROOT, Visitor

REASON = "Our partner shows the calculator."


def declare(given_up: dict[str, str], session_hours: int = 24) -> Flask:
    """Start the part of an app that checks what its team gives up."""
    app = Flask("tests")
    config = settings.Testing(session_hours=session_hours)
    promises.init_app(app, config, given_up)
    return app


@pytest.mark.parametrize(
    ("given_up", "message"),
    [
        ({"frames": REASON}, "'frames', which is not a promise(.|\n)*no-frames?"),
        ({"nothing": REASON}, "fix: the promises are (.|\n)*trusted-types"),
        ({"no-frames": ""}, "gives up no-frames without a reason"),
        ({"no-frames": "  "}, "gives up no-frames without a reason"),
        ({"no-frames": None}, "gives up no-frames without a reason"),
    ],
)
def test_an_unknown_promise_and_an_empty_reason_stop_the_start(given_up, message: str):
    with pytest.raises(ConfigurationError, match=message):
        declare(given_up)


def test_longer_sessions_need_a_declaration():
    declare({}, session_hours=720)
    with pytest.raises(ConfigurationError, match="APP_SESSION_HOURS is 721"):
        declare({}, session_hours=721)
    declare({"short-sessions": "Sensors on a wall stay signed in."}, session_hours=721)


def test_the_start_logs_what_is_given_up(
    app: Flask, written: Written, monkeypatch: pytest.MonkeyPatch
):
    for given_up in ({}, {"no-frames": REASON}):
        monkeypatch.setitem(app.extensions, "bulwark_promises", given_up)
        with app.app_context():
            promises.log_given_up()
    (line,) = written.lines()
    assert line["level"] == "warning"
    assert line["event"] == "sys_promises_given_up"
    assert line["reason"] == f"no-frames: {REASON}"


def test_a_command_lists_what_is_given_up():
    shown = declare({}).test_cli_runner().invoke(args=["promises"]).output
    assert shown == "This service gives up no promise.\n"
    given_up = {"no-frames": REASON}
    shown = declare(given_up).test_cli_runner().invoke(args=["promises"]).output
    assert f"given up: {REASON}" in shown


def test_each_promise_is_documented_and_has_a_test():
    page = (ROOT / "docs/promises.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `([\w-]+)` \|", page, re.MULTILINE)) == (
        promises.PROMISES.keys()
    )
    tests = "".join(
        path.read_text(encoding="utf-8")
        for path in (ROOT / "tests/bulwark").rglob("*.py")
    )
    for name in promises.PROMISES.keys() - {"short-sessions"}:  # tested above
        assert re.search(rf'(promise\(|, )"{name}"', tests), name


def test_administrators_read_what_is_given_up(
    app: Flask, ada: Visitor, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(app.extensions, "bulwark_promises", {})
    assert "Promises given up" not in ada.get("/admin").text
    monkeypatch.setitem(app.extensions, "bulwark_promises", {"no-frames": "<b>"})
    page = ada.get("/admin").text
    assert promises.PROMISES["no-frames"] in page
    assert "&lt;b&gt;" in page
