"""The service with the views that benchmarks call, as a team would write them.

Runs in the service: `gunicorn benchmark_views:app`, or an import.
"""

from typing import Any

from app import permissions, views
from bulwark import json_object, limit, permission, public, signed_in
from flask_login import current_user

PERMISSION = "reports:read"
ROLES = ("analyst", "editor", "reader")
REPORT = {"report": "sales", "rows": [{"month": n, "cents": 100 * n} for n in range(6)]}

permissions.PERMISSIONS[PERMISSION] = "View reports"
permissions.ROLES.update({role: [PERMISSION] for role in ROLES})


@views.blueprint.get("/benchmark/json")
@public
def anonymous_json() -> dict[str, Any]:
    return REPORT


@views.blueprint.get("/benchmark/me")
@signed_in
def signed_in_json() -> dict[str, Any]:
    roles = sorted(role.name for role in current_user.roles)
    return REPORT | {"email": current_user.email, "roles": roles}


@views.blueprint.post("/benchmark/notes")
@signed_in
@limit("1000000 per minute")
def post_json() -> dict[str, Any]:
    return REPORT | json_object(text=str)


@views.blueprint.get("/benchmark/report")
@permission(PERMISSION)
def report() -> dict[str, Any]:
    return REPORT


from wsgi import app  # noqa: E402

__all__ = ["app"]
