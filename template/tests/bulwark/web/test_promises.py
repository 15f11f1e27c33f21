"""The promises of docs/promises.md that the headers and cookies keep, a test each."""

import re
from collections.abc import Iterator

import pytest
from flask import Flask
from werkzeug.datastructures import Headers

from bulwark.web.embedding import FEATURES
from tests.conftest import Visitor, add_person, delete_rows

COEP = 'require-corp; report-to="reports"'


@pytest.fixture(scope="module")
def answers(whole_app: Flask, mailbox) -> Iterator[list[tuple[str, Headers]]]:
    """The headers of each page that needs no parameters, to a user who is signed in."""
    visitor = Visitor(whole_app, mailbox)
    visitor.sign_in(add_person(whole_app, "zoe@example.org"))
    found = [("/nowhere", visitor.get("/nowhere").headers)]
    for rule in whole_app.url_map.iter_rules():
        if "GET" in (rule.methods or ()) and not rule.arguments:
            with visitor.get(rule.rule) as answer:
                found.append((rule.rule, answer.headers))
    yield found
    with whole_app.app_context():
        delete_rows()


@pytest.fixture(scope="module")
def plain_answers(whole_app: Flask, answers) -> list[tuple[str, Headers]]:
    """Those of views without `@embeds`, whose exceptions test_headers.py checks."""
    embedding = {
        rule.rule
        for rule in whole_app.url_map.iter_rules()
        if hasattr(whole_app.view_functions[rule.endpoint], "embeds")
    }
    return [(path, got) for path, got in answers if path not in embedding]


def policies(
    answers: list[tuple[str, Headers]],
) -> Iterator[tuple[str, dict[str, list[str]]]]:
    """Yield the Content Security Policy of each page."""
    for path, got in answers:
        parts = [part.split() for part in got["Content-Security-Policy"].split(";")]
        yield path, {name: sources for name, *sources in parts}


@pytest.mark.promise("no-frames")
def test_no_other_site_frames_a_page(answers):
    for path, policy in policies(answers):
        assert policy["frame-ancestors"] == ["'none'"], path


@pytest.mark.promise("no-inline-styles")
def test_no_text_in_a_page_brings_styles(answers):
    for path, policy in policies(answers):
        assert "'unsafe-inline'" not in policy["style-src"], path


@pytest.mark.promise("no-eval")
def test_no_script_runs_text_as_code(answers):
    for path, policy in policies(answers):
        unsafe = {"'unsafe-eval'", "'wasm-unsafe-eval'"}
        assert not unsafe & set(policy["script-src"]), path


@pytest.mark.promise("trusted-types")
def test_no_script_makes_html_of_text_without_a_policy(answers):
    for path, policy in policies(answers):
        assert policy.get("require-trusted-types-for") == ["'script'"], path


@pytest.mark.promise("no-browser-features")
def test_no_page_uses_what_the_browser_asks_users_for(plain_answers):
    for path, got in plain_answers:
        for name in FEATURES:
            assert f"{name}=()" in got["Permissions-Policy"], path


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param(name, value, marks=pytest.mark.promise(promise))
        for name, value, promise in (
            ("Cross-Origin-Embedder-Policy", COEP, "no-foreign-embeds"),
            ("Cross-Origin-Opener-Policy", "same-origin", "no-shared-windows"),
            ("Cross-Origin-Resource-Policy", "same-origin", "no-hotlinks"),
            ("Referrer-Policy", "same-origin", "no-referrers"),
        )
    ],
)
def test_no_other_site_takes_part_in_a_page(plain_answers, name: str, value: str):
    for path, got in plain_answers:
        assert got[name] == value, path


@pytest.mark.promise("no-cached-pages")
def test_no_page_of_a_signed_in_user_is_cached(visitor: Visitor, answers):
    assert "no-store" not in visitor.get("/").headers.get("Cache-Control", "")
    for path, got in answers:
        assert "no-store" in got.get("Cache-Control", ""), path


@pytest.mark.promise("no-readable-cookies")
def test_no_script_reads_a_cookie_and_no_other_host_sets_one(
    visitor: Visitor, person: str
):
    found = visitor.get("/login").headers.getlist("Set-Cookie")
    found += visitor.sign_in(person).headers.getlist("Set-Cookie")
    found += visitor.get("/").headers.getlist("Set-Cookie")
    for cookie in found:
        assert re.match(r"__Host-[^;]+;.*\bSecure\b.*\bHttpOnly\b", cookie), cookie
