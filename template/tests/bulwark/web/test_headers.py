"""Headers and cookies of every answer."""

import re

import pytest
from flask import Flask
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from werkzeug.exceptions import HTTPException

from bulwark.database import db, rows
from bulwark.settings import ConfigurationError
from bulwark.web import headers
from bulwark.web.access import signed_in
from bulwark.web.embedding import DIRECTIVES, FEATURES, POLICY, Embeds
from tests.conftest import Visitor, given_up

EXPECTED = {
    "Strict-Transport-Security": "max-age=63072000; includeSubDomains",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": 'require-corp; report-to="reports"',
    "Cross-Origin-Resource-Policy": "same-origin",
    "Reporting-Endpoints": 'reports="/browser-reports"',
}


# The promise of each header that a team may give up (docs/promises.md).
PROMISED = {
    "Cross-Origin-Embedder-Policy": "no-foreign-embeds",
    "Cross-Origin-Opener-Policy": "no-shared-windows",
    "Cross-Origin-Resource-Policy": "no-hotlinks",
    "Permissions-Policy": "no-browser-features",
    "Referrer-Policy": "no-referrers",
    "X-Frame-Options": "no-frames",
}


# Directives of the Content Security Policy that a promise is about.
PROMISED_DIRECTIVES = {
    "frame-ancestors": "no-frames",
    "require-trusted-types-for": "trusted-types",
    "script-src": "no-eval",
    "style-src": "no-inline-styles",
}


def firm(app: Flask) -> dict[str, str]:
    """Return the headers that every answer has, but for promises given up."""
    declared = given_up(app)
    kept = {n: v for n, v in EXPECTED.items() if PROMISED.get(n) not in declared}
    assert kept.keys() >= EXPECTED.keys() - PROMISED.keys()
    return kept


def paths(app: Flask) -> list[str]:
    """Return an address for every route, and one that leads nowhere."""
    found = [
        re.sub(r"<[^>]+>", "x", rule.rule)
        for rule in app.url_map.iter_rules()
        if "GET" in (rule.methods or ())
    ]
    return [*found, "/static/bulwark/bulwark.css", "/nowhere"]


def csp(answer) -> dict[str, str]:
    """Return the directives of a response."""
    parts = answer.headers["Content-Security-Policy"].split(";")
    return {name: " ".join(value) for name, *value in map(str.split, parts)}


def sources(answer) -> dict[str, set[str]]:
    """Return the sources of each directive, without the nonce."""
    return {
        name: {source for source in value.split() if not source.startswith("'nonce-")}
        for name, value in csp(answer).items()
    }


def embedded(app: Flask, path: str, method: str) -> Embeds:
    """Return what the view of a path embeds: nothing, unless it has `@embeds`."""
    try:
        endpoint, _ = app.url_map.bind("localhost").match(path, method)
    except HTTPException:
        return Embeds()
    found: Embeds = getattr(app.view_functions[endpoint], "embeds", Embeds())
    return found


def with_embedded(policy: dict[str, set[str]], view: Embeds) -> dict[str, set[str]]:
    """Return the policy of the service with what a view embeds, and nothing else."""
    expected = dict(policy)
    for kind, origins in view.sources.items():
        directive = DIRECTIVES[kind]
        expected[directive] = expected.get(directive, set()) | set(origins)
    if names := set(view.trusted_types):
        expected["trusted-types"] = expected["trusted-types"] - {"'none'"} | names
    return expected


@pytest.mark.parametrize("signed_in", [False, True])
def test_every_answer_has_every_header(
    app: Flask, visitor: Visitor, person: str, signed_in: bool
):
    if signed_in:
        visitor.sign_in(person)
    policy = sources(visitor.get("/nowhere"))
    firm_ones, declared = firm(app), given_up(app)
    waived = {
        name for name, promise in PROMISED_DIRECTIVES.items() if promise in declared
    }
    for path in paths(app):
        for method in ("GET", "POST", "HEAD"):
            with visitor.client.open(path, method=method) as answer:
                view = embedded(app, path, method)
                expected = firm_ones | {
                    name: value
                    for name, value in view.isolation().items()
                    if name in firm_ones
                }
                got = {name: answer.headers.get(name) for name in expected}
                assert got == expected, (method, path, answer.status_code)
                assert PROMISED.keys() <= {name for name, _ in answer.headers}
                if "no-browser-features" not in declared:
                    allowed = answer.headers["Permissions-Policy"].split(", ")
                    unused = set(FEATURES) - view.features.keys()
                    assert {f"{name}=()" for name in unused} <= set(allowed), path
                assert csp(answer)["default-src"] == "'none'"
                if "sandbox" not in csp(answer):
                    actual, wanted = sources(answer), with_embedded(policy, view)
                    for name in waived:
                        actual.pop(name, None)
                        wanted.pop(name, None)
                    assert actual == wanted, path


def test_a_failure_inside_has_every_header(
    app: Flask, visitor: Visitor, monkeypatch: pytest.MonkeyPatch
):
    def fail() -> None:
        raise ZeroDivisionError

    monkeypatch.setitem(app.view_functions, "health.live", fail)
    fail.access = "public"  # type: ignore[attr-defined]
    monkeypatch.setitem(app.config, "PROPAGATE_EXCEPTIONS", False)
    answer = visitor.get("/healthz")
    assert answer.status_code == 500
    assert "ZeroDivisionError" not in answer.get_data(as_text=True)
    assert {name: answer.headers.get(name) for name in firm(app)} == firm(app)


def test_without_a_database_the_error_page_has_every_header_too(
    visitor: Visitor, app: Flask, person: str, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: object, **__: object) -> None:
        raise OperationalError("SELECT", {}, Exception("gone"))

    visitor.sign_in(person)
    monkeypatch.setattr(rows, "fetch", fail)
    monkeypatch.setattr(db.session, "execute", fail)
    monkeypatch.setattr(db.session, "scalar", fail)
    monkeypatch.setitem(app.config, "PROPAGATE_EXCEPTIONS", False)
    answer = visitor.get("/account")
    assert answer.status_code == 503
    assert "Service temporarily unavailable" in answer.get_data(as_text=True)
    assert {name: answer.headers.get(name) for name in firm(app)} == firm(app)


def test_the_policy_allows_nothing_that_is_not_named(app: Flask, visitor: Visitor):
    directives = csp(visitor.get("/nowhere"))
    assert directives.pop("report-uri") == "/browser-reports"
    assert directives.pop("report-to") == "reports"
    policies = directives.pop("trusted-types").split()
    assert policies == ["'none'"] or all(map(POLICY.fullmatch, policies))
    for name in ("base-uri", "form-action", "frame-ancestors"):
        assert name in directives
    for name, sources in directives.items():
        for source in set(sources.split()) - allowed(app, name):
            assert re.fullmatch("'(none|self|script|nonce-.+)'|data:", source) or (
                headers.HOST.fullmatch(source)  # declared in CSP_SOURCES
            )


def allowed(app: Flask, directive: str) -> set[str]:
    """Return the unsafe sources of a directive whose promise is given up."""
    unsafe = {
        "script-src": ("no-eval", {"'unsafe-eval'", "'wasm-unsafe-eval'"}),
        "style-src": ("no-inline-styles", {"'unsafe-inline'"}),
    }
    promise, sources = unsafe.get(directive, ("", set()))
    return sources if promise in given_up(app) else set()


def test_each_answer_has_a_nonce_of_its_own(visitor: Visitor):
    sources = [csp(visitor.get("/"))["script-src"].split() for _ in range(5)]
    nonces = [s for scripts in sources for s in scripts if s.startswith("'nonce")]
    assert len(set(nonces)) == 5
    assert all(re.fullmatch(r"'nonce-[\w-]{22,}'", nonce) for nonce in nonces)


@pytest.mark.parametrize(
    "sources",
    [
        {"script-src": ["'unsafe-inline'"]},
        {"style-src": ["'unsafe-eval'"]},
        {"img": ["https://images.example"]},
        {"img-src": ["*"]},
        {"img-src": ["https:"]},
        {"img-src": ["https://images.example; script-src *"]},
        {"base-uri": ["https://images.example"]},
        {"require-trusted-types-for": ["https://images.example"]},
        {"trusted-types": ["'allow-duplicates'"]},
        {"trusted-types": ["*"]},
        {"report-uri": ["https://images.example"]},
    ],
)
def test_a_team_can_add_hosts_but_nothing_unsafe(sources: dict[str, list[str]]):
    with pytest.raises(ConfigurationError, match="CSP_SOURCES"):
        headers._policy("testing", sources)
    good = {"img-src": ["https://images.example"], "frame-src": ["https://*.a.example"]}
    added = headers._policy("testing", good)
    assert added["img-src"] == ["'self'", "data:", "https://images.example"]
    assert added["frame-src"] == ["https://*.a.example"]
    assert headers.CSP["img-src"] == ["'self'", "data:"]
    named = headers._policy("testing", {"trusted-types": ["charts#html"]})
    assert named["trusted-types"] == ["charts#html"]


def test_pages_of_a_signed_in_user_are_not_cached(visitor: Visitor, person: str):
    visitor.sign_in(person)
    for path in ("/account", "/change", "/nowhere"):  # of the base
        assert "no-store" in visitor.get(path).headers["Cache-Control"]


def test_a_user_who_was_deleted_meanwhile_gets_the_answer_of_the_view(
    app: Flask, visitor: Visitor, person: str, monkeypatch: pytest.MonkeyPatch
):
    @signed_in
    def leave() -> str:
        db.session.execute(text("DELETE FROM users"))
        db.session.commit()
        return "Goodbye"

    visitor.sign_in(person)
    monkeypatch.setitem(app.view_functions, "account.index", leave)
    answer = visitor.get("/account")
    assert answer.text == "Goodbye"
    assert "no-store" in answer.headers["Cache-Control"]


def test_pages_with_a_form_of_accounts_are_not_stored(visitor: Visitor):
    visitor.get("/")
    for path in ("/login", "/reset", "/login/passkey"):
        directives = visitor.get(path).headers["Cache-Control"].split(", ")
        assert "no-store" in directives, path


def test_every_cookie_of_the_base_is_bound_to_this_host_and_hidden(
    visitor: Visitor, person: str
):
    visitor.get("/login")
    cookies = visitor.sign_in(person).headers.getlist("Set-Cookie")
    own = [cookie for cookie in cookies if cookie.startswith("__Host-")]
    assert {cookie.partition("=")[0] for cookie in own} >= {"__Host-session"}
    for cookie in own:
        _, *attributes = (part.strip() for part in cookie.split(";"))
        assert {"Secure", "HttpOnly", "Path=/", "SameSite=Lax"} <= set(attributes)
        assert not any(a.startswith("Domain") for a in attributes)


def test_the_session_is_new_after_signing_in(visitor: Visitor, person: str):
    visitor.get("/login")
    before = visitor.client.get_cookie("__Host-session")
    visitor.sign_in(person)
    after = visitor.client.get_cookie("__Host-session")
    assert before
    assert after
    assert before.value != after.value
