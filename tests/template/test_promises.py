"""docs/promises.md, done to a new service, and each promise broken on purpose."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.guide import Service, changing_its_own_files, copy_of

CALCULATOR = """
def test_the_partner_frames_the_calculator_only(visitor):
    policy = visitor.get("/calculator/").headers["Content-Security-Policy"]
    assert "frame-ancestors https://partner.example" in policy
    assert visitor.get("/calculator/").headers["Referrer-Policy"] == "same-origin"
    for path in ("/", "/login"):
        policy = visitor.get(path).headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in policy
"""
# A team that breaks whatever its code can break.
BREAKS = '''
"""Breaks each promise."""

from flask import Flask, Response, request
from sqlalchemy import text

from bulwark import db

VALUES = {
    "Cross-Origin-Embedder-Policy": "unsafe-none",
    "Cross-Origin-Opener-Policy": "unsafe-none",
    "Cross-Origin-Resource-Policy": "cross-origin",
    "Permissions-Policy": "camera=(self)",
    "Referrer-Policy": "origin",
}
POLICY = (
    ("frame-ancestors 'none'", "frame-ancestors https://partner.example"),
    ("; require-trusted-types-for 'script'", ""),
    ("script-src ", "script-src 'unsafe-eval' "),
    ("style-src ", "style-src 'unsafe-inline' "),
)


def break_headers(response: Response) -> Response:
    """Break what headers promise, and the promise of caches for the team's pages."""
    policy = response.headers["Content-Security-Policy"]
    for old, new in POLICY:
        policy = policy.replace(old, new)
    response.headers["Content-Security-Policy"] = policy
    response.headers.update(VALUES)
    if request.blueprint == "app":
        response.headers["Cache-Control"] = "private"
    response.set_cookie("theme", "dark", secure=True)
    return response


def query() -> None:
    """Ask the database before each request."""
    db.session.execute(text("SELECT 1"))


def init_app(app: Flask) -> None:
    """Break everything, before the base is set up."""
    app.before_request(query)
    app.after_request(break_headers)
'''
SHIPPED = (
    *("web/test_promises.py", "web/test_headers.py", "audit/test_promises.py"),
    *("identity/test_sessions.py", "identity/test_tokens.py"),
)
BROKEN = {
    *("no-browser-features", "no-cached-pages", "no-eval", "no-foreign-embeds"),
    *("no-frames", "no-hotlinks", "no-inline-styles", "no-readable-cookies"),
    *("no-referrers", "no-shared-windows", "one-query", "trusted-types"),
}


@pytest.fixture
def team(ready: Path, tmp_path: Path) -> Iterator[Service]:
    """Return a service whose team follows the guide, and changes its own files only."""
    service = copy_of(ready, tmp_path / "service", "promises.md")
    with changing_its_own_files(service):
        yield service


def test_a_team_gives_up_two_promises_and_every_check_passes(team: Service) -> None:
    team.follow(1)
    for check in ("ruff format --check", "ruff check", "mypy", "lint-imports"):
        team.run("sh", "-c", f".venv/bin/{check}")
    assert "given up: partner.example shows" in team.run("bin/flask", "promises")
    team.proves(CALCULATOR)
    paths = [f"tests/bulwark/{name}" for name in SHIPPED]
    team.run("bin/test", "-q", "-n0", *paths)
    (team.folder / "app/promises.py").write_text(
        'PROMISES = {"no-frame": "partner.example shows the calculator."}\n'
    )
    refused = team.refusal("bin/flask", "routes")
    assert "did you mean no-frames?" in refused


def test_each_broken_promise_is_red_until_it_is_declared(team: Service) -> None:
    (team.folder / "app/breaks.py").write_text(BREAKS.lstrip())
    app = team.folder / "app/__init__.py"
    call = "    bulwark.init_app(\n        app,\n"
    app.write_text(
        app.read_text()
        .replace("from app import ", "from app import breaks, ")
        .replace(call, f"    breaks.init_app(app)\n{call}        promises=PROMISES,\n")
        .replace("\n\n\ndef", "\nfrom app.promises import PROMISES\n\n\ndef")
    )

    def tests(**given_up: str) -> tuple[set[str], set[str]]:
        """Return the promises whose tests are red, and those expected to be."""
        declared = {name.replace("_", "-"): why for name, why in given_up.items()}
        (team.folder / "app/promises.py").write_text(f"PROMISES = {declared!r}\n")
        paths = " ".join(f"tests/bulwark/{name}" for name in SHIPPED)
        shown = team.run("sh", "-c", f"bin/test -n0 -q -rfx {paths} 2>&1 || true")
        assert " passed" in shown, shown
        red = re.findall(r"^FAILED \S+::(\w+)", shown, re.MULTILINE)
        return set(red), set(re.findall(r" - ([\w-]+) is given up: why", shown))

    red, expected = tests()
    assert len(red) > len(BROKEN) - 4  # four of them are one test
    assert not expected
    assert tests(**{name.replace("-", "_"): "why" for name in BROKEN}) == (
        set(),
        BROKEN,
    )
