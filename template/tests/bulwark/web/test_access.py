"""Access: every route declares who may call it, and the declaration is enforced."""

import pytest
from flask import Flask

from bulwark.identity.csrf import csrf
from bulwark.web import access, problems
from bulwark.web.access import UndeclaredAccessError, permission, public, signed_in
from bulwark.web.body_limits import limit_of
from tests.conftest import Visitor, add_person
from tests.support import sample_path


def view() -> str:
    return "hello"


def small_app() -> Flask:
    return Flask("tests")


def test_every_route_of_this_service_declares_who_may_call_it(app: Flask):
    declared = {
        rule.endpoint: access.declared_for(app, rule.endpoint)
        for rule in app.url_map.iter_rules()
    }
    assert None not in declared.values()


def test_a_route_without_a_declaration_stops_the_start_and_is_named():
    app = small_app()
    app.add_url_rule("/forgotten", "forgotten", view)
    with pytest.raises(UndeclaredAccessError, match=r"/forgotten .* does not declare"):
        access.init_app(app, {}, {})


def test_an_undeclared_permission_stops_the_start():
    app = small_app()
    app.add_url_rule("/invoices", "invoices", permission("invoices:raed")(view))
    with pytest.raises(UndeclaredAccessError, match="invoices:raed"):
        access.init_app(app, {"invoices:read": "See invoices"}, {})
    del view.access  # type: ignore[attr-defined]


def test_a_role_with_an_undeclared_permission_stops_the_start():
    with pytest.raises(UndeclaredAccessError, match="'bookkeeper' grants"):
        access.init_app(small_app(), {}, {"bookkeeper": ["invoices:read"]})


def test_a_role_may_grant_what_is_declared():
    app = small_app()
    access.init_app(app, {"invoices:read": "See them"}, {"clerk": ["invoices:read"]})
    assert "invoices:read" in app.extensions["permissions"]


@pytest.mark.parametrize("name", ["invoices:raed", "users:write"])
def test_a_permission_for_everyone_is_one_of_the_team(name: str):
    with pytest.raises(UndeclaredAccessError, match=f"every user would have '{name}'"):
        access.init_app(small_app(), {"invoices:read": "See them"}, {}, [name])


@pytest.fixture(scope="module")
def guarded(whole_app: Flask) -> Flask:
    """The service with a route for each declaration, and one added too late."""
    whole_app._got_first_request = False
    for path, guard in {
        "/for-all": public,
        "/for-people": signed_in,
        "/for-admins": permission("users:read"),
        "/for-nobody": lambda late: late,
    }.items():
        own = eval("lambda: 'hello'")
        whole_app.add_url_rule(path, path, guard(own))
    return whole_app


@pytest.mark.parametrize(
    ("path", "stranger", "person", "administrator"),
    [
        ("/for-all", 200, 200, 200),
        ("/for-people", 302, 200, 200),
        ("/for-admins", 302, 403, 200),
        ("/for-nobody", 403, 403, 403),
    ],
)
def test_each_declaration_lets_the_right_people_in(
    guarded: Flask,
    visitor: Visitor,
    path: str,
    stranger: int,
    person: int,
    administrator: int,
):
    assert visitor.get(path).status_code == stranger
    visitor.sign_in(add_person(guarded, "zoe@example.org"))
    assert visitor.get(path).status_code == person
    visitor.client.delete_cookie("__Host-session")
    visitor.sign_in(add_person(guarded, "ada@example.org", "administrator"))
    assert visitor.get(path).status_code == administrator


# The only views without one. Whoever has its signed link may call the first (RFC 8058).
# Browsers call the second, which only counts.
UNSUBSCRIBE, REPORTS = "unsubscribing.unsubscribe", "browser_reports.receive"


def test_only_two_views_need_no_csrf_token(app: Flask):
    views = [app.view_functions[name] for name in (UNSUBSCRIBE, REPORTS)]
    assert csrf._exempt_views == {f"{v.__module__}.{v.__name__}" for v in views}
    assert not csrf._exempt_blueprints


def is_of_an_api(app: Flask, path: str, endpoint: str) -> bool:
    """Return whether a path is part of an API, and not public."""
    with app.app_context():
        is_public = access.declared_for(app, endpoint) == access.PUBLIC
        return problems.covers(path) and not is_public


@pytest.mark.parametrize("signed_in", [False, True])
def test_no_route_changes_anything_without_a_csrf_token(
    app: Flask, visitor: Visitor, person: str, signed_in: bool
):
    if signed_in:
        visitor.sign_in(person)
    tried = []
    for rule in app.url_map.iter_rules():
        if rule.endpoint in (UNSUBSCRIBE, REPORTS):
            continue
        for method in (rule.methods or set()) & {"POST", "PUT", "PATCH", "DELETE"}:
            path = sample_path(rule.rule)
            # Programs have no session, so a view of an API needs a token instead.
            is_api = not signed_in and is_of_an_api(app, path, rule.endpoint)
            # The body of an upload is not read to look for the token.
            is_upload = not signed_in and limit_of(app, rule.endpoint) is not None
            expected = {401} if is_api else {302, 400} if is_upload else {400}
            with visitor.client.open(path, method=method) as answer:
                assert answer.status_code in expected, (method, path)
            tried.append(path)
    assert "/logout" in tried


def test_a_json_client_gets_401(visitor: Visitor):
    answer = visitor.get("/account", headers={"Accept": "application/json"})
    assert answer.status_code == 401
    assert answer.get_json()["error"] == "Please sign in"
