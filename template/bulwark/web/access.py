"""Who may call each route. The service does not start if a route lacks this.

@blueprint.get("/prices")
@public
def prices(): ...

@blueprint.get("/invoices")
@permission("invoices:read")
def invoices(): ...

@blueprint.post("/invoices/<number>/pay")
@permission("invoices:pay")
@recent
def pay(number): ...
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, TypeVar
from urllib.parse import urlsplit

from flask import Flask, abort, current_app, flash, redirect, request, url_for
from flask.typing import ResponseReturnValue
from flask_login import current_user
from flask_security.utils import check_and_update_authn_fresh, get_message

from bulwark.audit import events
from bulwark.observability.logging import log
from bulwark.web import problems
from bulwark.web.errors import refusal, wants_json

View = TypeVar("View", bound=Callable[..., Any])

PUBLIC = "public"
SIGNED_IN = "signed in"
NO_GRACE = timedelta(0)
ADMINISTRATOR = "administrator"  # the role with every permission
# Permissions that the base's own pages require.
PERMISSIONS = {
    "users:read": "View accounts, their sessions and the security history",
    "users:write": "Invite, lock and unlock users, end sessions, force a new password",
    "roles:write": "Create and edit roles, assign and revoke them",
    "failed_jobs:read": "View failed jobs and their errors",
    "failed_jobs:write": "Retry and discard failed jobs, and view their arguments",
}


class UndeclaredAccessError(Exception):
    """A route does not declare who may call it, or a permission is not declared."""


def public(view: View) -> View:
    """Let anyone call this view."""
    return _declare(view, PUBLIC)


def signed_in(view: View) -> View:
    """Let any signed-in user call this view."""
    return _declare(view, SIGNED_IN)


def permission(name: str) -> Callable[[View], View]:
    """Let users call this view if one of their roles grants the permission."""
    return lambda view: _declare(view, name)


def recent(view: View) -> View:
    """Require the password or a passkey again unless used in the last 15 minutes."""
    view.recent = True  # type: ignore[attr-defined]
    return view


def while_setting_up(view: View) -> View:
    """Also allow users who have not yet set up a required second factor."""
    view.while_setting_up = True  # type: ignore[attr-defined]
    return view


def before_terms(view: View) -> View:
    """Also allow users who have not yet accepted the terms of use."""
    view.before_terms = True  # type: ignore[attr-defined]
    return view


def declare(app: Flask, access: str, endpoints: Iterable[str]) -> None:
    """Declare who may call an extension's routes, which can't be decorated."""
    for endpoint in endpoints:
        app.extensions.setdefault("access", {})[endpoint] = access


def declared_for(app: Flask, endpoint: str) -> str | None:
    """Return who may call an endpoint, or None if that is not declared."""
    declared: dict[str, str] = app.extensions.setdefault("access", {})
    found = declared.get(endpoint)
    return found or getattr(app.view_functions.get(endpoint), "access", None)


def granted_to_everyone(app: Flask) -> frozenset[str]:
    """Return the permissions that every user has, even without a role."""
    granted: frozenset[str] = app.extensions.get("everyone", frozenset())
    return granted


def init_app(
    app: Flask,
    permissions: Mapping[str, str],
    roles: Mapping[str, Sequence[str]],
    everyone: Sequence[str] = (),
) -> None:
    """Check that every route declares who may call it, and enforce it on requests."""
    declare(app, PUBLIC, ["static"])
    known = PERMISSIONS | dict(permissions)
    app.extensions["permissions"] = known
    app.extensions["everyone"] = frozenset(everyone)
    wrong = [
        *_undeclared_routes(app, known),
        *_undeclared_in(roles, known),
        *_unfit_for_everyone(everyone, permissions),
    ]
    if wrong:
        raise UndeclaredAccessError(
            "the service did not start:\n" + "\n".join(f"- {w}" for w in wrong)
        )
    app.before_request(_enforce)


def _declare(view: View, access: str) -> View:
    view.access = access  # type: ignore[attr-defined]
    return view


def _undeclared_routes(app: Flask, known: Mapping[str, str]) -> Iterable[str]:
    for rule in app.url_map.iter_rules():
        access = declared_for(app, rule.endpoint)
        if access is None:
            yield (
                f"{rule.rule} ({rule.endpoint}) does not declare who may call it: add"
                " @public, @signed_in or @permission below the route decorator"
            )
        elif access not in (PUBLIC, SIGNED_IN, *known):
            yield (
                f"{rule.rule} ({rule.endpoint}) requires {access!r}, which is not"
                " declared: add it to PERMISSIONS in app/permissions.py"
            )


def _undeclared_in(
    roles: Mapping[str, Sequence[str]], known: Mapping[str, str]
) -> Iterable[str]:
    for role, granted in roles.items():
        for name in granted:
            if name not in known:
                yield (
                    f"the role {role!r} grants {name!r}, which is not declared: add"
                    " it to PERMISSIONS in app/permissions.py"
                )


def _unfit_for_everyone(
    everyone: Sequence[str], permissions: Mapping[str, str]
) -> Iterable[str]:
    for name in everyone:
        if name not in permissions:
            yield (
                f"every user would have {name!r}, which is not one of your permissions:"
                " add it to PERMISSIONS in app/permissions.py"
            )


def _enforce() -> ResponseReturnValue | None:
    if request.endpoint is None:
        return None  # No route matches: Flask returns 404 or 405.
    view = current_app.view_functions[request.endpoint]
    access = declared_for(current_app, request.endpoint)
    if access == PUBLIC:
        return None
    if access is None:
        # The route was added after the check at startup.
        log.error("access_undeclared", endpoint=request.endpoint)
        abort(403)
    user = current_user._get_current_object()
    if not user.is_authenticated:
        unauthorized: ResponseReturnValue = current_app.login_manager.unauthorized()  # type: ignore[attr-defined]
        return unauthorized
    if not (
        hasattr(view, "while_setting_up")
        or not user.must_have_second_factor
        or user.has_second_factor
    ):
        return _require_second_factor_setup()
    if user.must_accept_terms and not _may_before_terms(view):
        return _require_terms()
    if not _may(user, view, access):
        events.record("authz_fail", user, permission=access)
        abort(403)
    if hasattr(view, "recent") and not _is_recent():
        return _reauthenticate()
    return None


def _may_before_terms(view: Callable[..., Any]) -> bool:
    return hasattr(view, "before_terms") or hasattr(view, "while_setting_up")


def _may(user: Any, view: Callable[..., Any], access: str) -> bool:
    """Return whether the caller may call a view; access tokens are for permissions."""
    personal = access == SIGNED_IN or hasattr(view, "recent")
    if personal and user.token_permissions is not None:
        return False
    return access == SIGNED_IN or bool(user.has_permission(access))


def _require_second_factor_setup() -> ResponseReturnValue:
    """Allow nothing but setting up the second factor that the user must have."""
    if wants_json():
        return refusal(403, "Set up a second factor first")
    return redirect(url_for("account.second_factor"))


def _require_terms() -> ResponseReturnValue:
    """Allow nothing but accepting the terms, then return to the page."""
    if wants_json():
        url = url_for("account.terms", _external=True)
        return refusal(403, f"Accept the terms of use first, at {url}")
    return redirect(url_for("account.terms", next=_page_before_or_this()))


def _page_before_or_this() -> str:
    """Return the requested page, or the one that contained the form."""
    if request.method in ("GET", "HEAD"):
        return request.full_path.rstrip("?")
    return _page_before()


def _reauthenticate() -> ResponseReturnValue:
    """Require reauthentication, then return to a page that supports GET."""
    if problems.apply():
        return refusal(401, "Please sign in again, then retry")
    rule = request.url_rule
    if wants_json() or (rule and rule.methods and "GET" in rule.methods):
        response: ResponseReturnValue = current_app.extensions[
            "security"
        ]._reauthn_handler(_freshness(), NO_GRACE)
        return response
    flash(*get_message("REAUTHENTICATION_REQUIRED"))
    return redirect(url_for("security.verify", next=_page_before()))


def _page_before() -> str:
    """Return the path of the page that contained the form."""
    with suppress(ValueError):
        page = urlsplit(request.referrer or "")
        if page.netloc == request.host and page.path.startswith("/"):
            return page.path
    return url_for("account.index")


def _is_recent() -> bool:
    return bool(check_and_update_authn_fresh(_freshness(), NO_GRACE))


def _freshness() -> timedelta:
    freshness: timedelta = current_app.config["SECURITY_FRESHNESS"]
    return freshness
