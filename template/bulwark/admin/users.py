"""Users: the list of accounts, and the page of each."""

from collections.abc import Sequence
from typing import Any

from flask import jsonify, render_template
from flask.typing import ResponseReturnValue
from flask_login import current_user
from sqlalchemy import Select, func, select

from bulwark.admin import history
from bulwark.admin.confirmation import (
    PAGE,
    USER,
    argument,
    before,
    blueprint,
    search,
)
from bulwark.audit import events
from bulwark.audit.events import SecurityEvent
from bulwark.database import db
from bulwark.identity import (
    authorization,
    profile,
    sessions,
    sign_up_options,
    users,
)
from bulwark.identity.models import BaseUser, Role, users_roles
from bulwark.web.access import permission
from bulwark.web.errors import wants_json

LATEST = 20
# Counting stops here, as the database reads each row that it counts.
MOST_COUNTED = 1000
INTEGER = 2**31 - 1  # The maximum id: the database rejects larger numbers.


@blueprint.get("/users", endpoint="users")
@permission("users:read")
def list_users() -> ResponseReturnValue:
    """List users, newest first, a page at a time."""
    query = _matching()
    count = _count(query)
    page, older = _page(query)
    if wants_json():
        return jsonify(
            users=[_to_dict(user) for user in page],
            count=min(count, MOST_COUNTED),
            counted_all=count <= MOST_COUNTED,
            before=older,
        )
    return render_template(
        "bulwark/admin/users.html",
        users=page,
        count=count,
        most=MOST_COUNTED,
        older=older,
        roles=_role_names(),
        search=search("q", "role", "locked"),
    )


@blueprint.get(USER, endpoint="user")
@permission("users:read")
def show_user(user_id: int) -> ResponseReturnValue:
    """Show one user: roles, second factors, sessions and recent events."""
    user = db.get_or_404(users.model(), user_id)
    open_sessions = [sessions.to_dict(row) for row in sessions.for_user(user)]
    if user.id != current_user.id:
        events.record("sensitive_read", user, action="person")
    latest = db.session.scalars(_events_of(user_id)).all()
    if wants_json():
        return jsonify(**_to_dict(user), sessions=open_sessions)
    return render_template(
        "bulwark/admin/user.html",
        user=user,
        profile=profile.rows(sign_up_options.current().form, user),
        sessions=open_sessions,
        events=history.to_dicts(latest),
        roles=db.session.scalars(select(Role).order_by(Role.name)).all(),
        may_manage=authorization.may_manage,
    )


def _matching() -> Select[BaseUser]:
    """Return a query of the users who match the search.

    A complete email address uses the index; a part of one scans all addresses.
    """
    model = users.model()
    query = users.query()
    if part := argument("q").lower():
        known = users.find(part) if "@" in part else None
        query = query.where(
            model.id == known.id
            if known
            else model.email.contains(part, autoescape=True)
        )
    if name := argument("role"):
        having = select(users_roles.c.user_id).join(Role).where(Role.name == name)
        query = query.where(model.id.in_(having))
    if argument("locked"):
        query = query.where(model.active.is_(False))
    return query


def _count(query: Select[BaseUser]) -> int:
    ids = query.with_only_columns(users.model().id).limit(MOST_COUNTED + 1).subquery()
    return db.session.scalar(select(func.count()).select_from(ids)) or 0


def _page(query: Select[BaseUser]) -> tuple[Sequence[BaseUser], int | None]:
    """Return a page of users, and where the next one starts."""
    model = users.model()
    found = db.session.scalars(
        query.where(model.id < before(INTEGER))
        .order_by(model.id.desc())
        .limit(PAGE + 1)
    ).all()
    page = found[:PAGE]
    return page, page[-1].id if len(found) > PAGE else None


def _events_of(user_id: int) -> Select[SecurityEvent]:
    return (
        select(SecurityEvent)
        .where(SecurityEvent.user_id == user_id, SecurityEvent.name != "sensitive_read")
        .order_by(SecurityEvent.at.desc(), SecurityEvent.id.desc())
        .limit(LATEST)
    )


def _to_dict(user: BaseUser) -> dict[str, Any]:
    last = user.current_login_at
    return {
        "id": user.id,
        "email": user.email,
        "profile": profile.to_dict(sign_up_options.current().form, user),
        "accepted_terms_version": user.accepted_terms_version,
        "locked": not user.active,
        "has_password": user.password is not None,
        "roles": sorted(role.name for role in user.roles),
        "passkeys": len(user.webauthn),
        "authenticator_app": user.sealed_totp_secret is not None,
        "second_factor_required": user.must_have_second_factor,
        "created_at": user.created_at.isoformat(),
        "last_signed_in_at": last.isoformat() if last else None,
    }


def _role_names() -> Sequence[str]:
    return db.session.scalars(select(Role.name).order_by(Role.name)).all()
