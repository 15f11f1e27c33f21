"""People: the list of accounts, and the actions of administrators on them."""

from collections.abc import Sequence
from typing import Any

from flask import abort, current_app, jsonify, render_template, url_for
from flask.typing import ResponseReturnValue
from flask_login import current_user
from flask_security import forms as stock
from sqlalchemy import Select, func, select
from sqlalchemy.orm import selectinload
from wtforms import EmailField, SubmitField
from wtforms.validators import DataRequired, Length

from bulwark.admin.confirmation import (
    FORM,
    PAGE,
    ROLE,
    act,
    act_on,
    argument,
    before,
    blueprint,
    managed,
    managed_role,
    person_model,
    reason_field,
    search,
)
from bulwark.admin.history import facts_of_events
from bulwark.audit import events
from bulwark.audit.events import SecurityEvent
from bulwark.database import db
from bulwark.identity import accounts, sessions
from bulwark.identity.models import EMAIL_LENGTH, BaseUser, Role, users_roles
from bulwark.web.access import permission, recent
from bulwark.web.errors import wants_json

LATEST = 20
# Counting stops here, as the database reads each row that it counts.
MOST_COUNTED = 1000
INTEGER = 2**31 - 1  # The maximum id: the database rejects larger numbers.
USER = "/users/<int(max=2147483647):user_id>"
SESSION = "/sessions/<int(max=2147483647):session_id>"


class InviteForm(stock.Form):
    """The form that invites a person by email."""

    email = EmailField(
        "Email address",
        validators=[
            stock.IsString(),
            DataRequired("Enter an email address."),
            Length(max=EMAIL_LENGTH, message="This email address is too long."),
        ],
        render_kw={"autocomplete": "off"},
    )
    reason = reason_field()
    submit = SubmitField("Invite")


@blueprint.get("/users")
@permission("users:read")
def users() -> ResponseReturnValue:
    """List people, newest first, a page at a time."""
    query = _people()
    person = person_model()
    counted = query.with_only_columns(person.id).limit(MOST_COUNTED + 1).subquery()
    count = db.session.scalar(select(func.count()).select_from(counted)) or 0
    found = db.session.scalars(
        query.where(person.id < before(INTEGER))
        .options(selectinload(person.roles), selectinload(person.webauthn))
        .order_by(person.id.desc())
        .limit(PAGE + 1)
    ).all()
    page = found[:PAGE]
    older = page[-1].id if len(found) > PAGE else None
    if wants_json():
        return jsonify(
            users=[_facts_of_user(user) for user in page],
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


@blueprint.get(USER)
@permission("users:read")
def user(user_id: int) -> ResponseReturnValue:
    """Show one person: roles, second factors, sessions and recent events."""
    person = db.get_or_404(person_model(), user_id)
    open_sessions = sessions.for_user(person)
    if person.id != current_user.id:
        events.record("sensitive_read", person, action="person")
    latest = db.session.scalars(
        select(SecurityEvent)
        .where(SecurityEvent.user_id == user_id, SecurityEvent.name != "sensitive_read")
        .order_by(SecurityEvent.at.desc(), SecurityEvent.id.desc())
        .limit(LATEST)
    ).all()
    if wants_json():
        return jsonify(
            **_facts_of_user(person),
            sessions=[sessions.to_dict(row) for row in open_sessions],
        )
    return render_template(
        "bulwark/admin/user.html",
        user=person,
        sessions=[sessions.to_dict(row) for row in open_sessions],
        events=facts_of_events(latest),
        roles=db.session.scalars(select(Role).order_by(Role.name)).all(),
        may_manage=accounts.may_manage,
    )


@blueprint.route("/users/invite", methods=FORM)
@permission("users:write")
@recent
def invite() -> ResponseReturnValue:
    """Create an account for an email address, and email its owner a link."""
    form = InviteForm()

    def do(**why: Any) -> None:
        person, link = accounts.invite(form.email.data, **why)
        accounts.mail_invitation(person, link)

    return act(
        form,
        do,
        title="Invite a person",
        text="They receive an email with a link to choose their own password.",
        done="The invitation is on its way.",
        back=url_for(".users"),
    )


@blueprint.route(f"{USER}/lock", methods=FORM)
@permission("users:write")
@recent
def lock(user_id: int) -> ResponseReturnValue:
    """Lock an account."""
    person = managed(user_id)
    return act_on(
        person,
        lambda **why: accounts.lock(person, **why),
        title=f"Lock {person.email}",
        text="They are signed out everywhere immediately, and can't sign in until the"
        " account is unlocked.",
        button="Lock the account",
        done=f"{person.email} is locked and signed out.",
    )


@blueprint.route(f"{USER}/unlock", methods=FORM)
@permission("users:write")
@recent
def unlock(user_id: int) -> ResponseReturnValue:
    """Unlock an account."""
    person = managed(user_id)
    return act_on(
        person,
        lambda **why: accounts.unlock(person, **why),
        title=f"Unlock {person.email}",
        text="They can sign in again, with their existing password and second factors.",
        button="Unlock the account",
        done=f"{person.email} can sign in again.",
    )


@blueprint.route(f"{USER}/reset", methods=FORM)
@permission("users:write")
@recent
def reset(user_id: int) -> ResponseReturnValue:
    """Require a person to choose a new password."""
    person = managed(user_id)
    return act_on(
        person,
        lambda **why: accounts.force_reset(person, **why),
        title=f"Reset the password of {person.email}",
        text="Their password stops working, they are signed out everywhere, access"
        " tokens are revoked, and they receive an email to choose a new password. Their"
        " second factors stay.",
        button="Reset the password",
        done=f"{person.email} is signed out. An email with a link is on its way.",
    )


@blueprint.route(f"{USER}/second-factor/require", methods=FORM)
@permission("users:write")
@recent
def require_factor(user_id: int) -> ResponseReturnValue:
    """Require a second factor for an account."""
    person = managed(user_id)
    return act_on(
        person,
        lambda **why: accounts.require_second_factor(person, True, **why),
        title=f"Require a second factor for {person.email}",
        text="Until they set one up, they can't do anything else here.",
        button="Require second factor",
        done=f"{person.email} now needs a second factor.",
    )


@blueprint.route(f"{USER}/second-factor/allow-without", methods=FORM)
@permission("users:write")
@recent
def allow_without_factor(user_id: int) -> ResponseReturnValue:
    """Stop requiring a second factor for an account, unless a role requires one."""
    person = managed(user_id)
    return act_on(
        person,
        lambda **why: accounts.require_second_factor(person, False, **why),
        title=f"Stop requiring a second factor for {person.email}",
        text="One of their roles may still require one. Their existing factors stay.",
        button="Stop requiring it",
        done=f"{person.email} needs no second factor, unless a role requires one.",
    )


@blueprint.route(f"{USER}/sessions/end", methods=FORM)
@permission("users:write")
@recent
def end_sessions(user_id: int) -> ResponseReturnValue:
    """Sign a person out everywhere."""
    person = managed(user_id)
    return act_on(
        person,
        lambda **why: accounts.sign_out(person, **why),
        title=f"Sign {person.email} out",
        text="All their sessions end immediately. They can sign in again.",
        button="End all sessions",
        done=f"{person.email} is signed out everywhere.",
    )


@blueprint.route(f"{USER}{SESSION}/end", methods=FORM)
@permission("users:write")
@recent
def end_session(user_id: int, session_id: int) -> ResponseReturnValue:
    """End one session of a person."""
    person = managed(user_id)
    row = next((s for s in sessions.for_user(person) if s.id == session_id), None)
    if row is None:
        abort(404)
    facts = sessions.to_dict(row)
    return act_on(
        person,
        lambda **why: accounts.sign_out(person, session_id, **why),
        title=f"End a session of {person.email}",
        text=f"{facts['device']}, from {facts['address']}. They can sign in again.",
        button="End the session",
        done="The session has ended.",
    )


@blueprint.route(f"{USER}{ROLE}/give", methods=FORM)
@permission("roles:write")
@recent
def give_role(user_id: int, role_id: int) -> ResponseReturnValue:
    """Assign a role to a person."""
    person, role = managed(user_id), managed_role(role_id)
    return act_on(
        person,
        lambda **why: accounts.give_role(person, role, **why),
        title=f"Assign the role {role.name} to {person.email}",
        text=f"From their next request on, they have these permissions: {_may(role)}",
        button="Assign role",
        done=f"{person.email} now has the role {role.name}.",
    )


@blueprint.route(f"{USER}{ROLE}/take", methods=FORM)
@permission("roles:write")
@recent
def take_role(user_id: int, role_id: int) -> ResponseReturnValue:
    """Remove a role from a person."""
    person, role = managed(user_id), managed_role(role_id)
    return act_on(
        person,
        lambda **why: accounts.take_role(person, role, **why),
        title=f"Remove the role {role.name} from {person.email}",
        text=f"From their next request on, they lose these permissions: {_may(role)}",
        button="Remove role",
        done=f"{person.email} no longer has the role {role.name}.",
    )


def _may(role: Role) -> str:
    meanings = current_app.extensions["permissions"]
    allowed = sorted(meanings.get(name, name) for name in role.get_permissions())
    return "; ".join(allowed) + "." if allowed else "none."


def _people() -> Select[BaseUser]:
    """Return a query of the people who match the search.

    A complete email address uses the index; a part of one scans all addresses.
    """
    person = person_model()
    query = select(person)
    if part := argument("q").lower():
        known = accounts.find(part) if "@" in part else None
        same = person.id == known.id if known else None
        query = query.where(
            person.email.contains(part, autoescape=True) if same is None else same
        )
    if name := argument("role"):
        having = select(users_roles.c.user_id).join(Role).where(Role.name == name)
        query = query.where(person.id.in_(having))
    if argument("locked"):
        query = query.where(person.active.is_(False))
    return query


def _facts_of_user(person: BaseUser) -> dict[str, Any]:
    last = person.current_login_at
    return {
        "id": person.id,
        "email": person.email,
        "locked": not person.active,
        "has_password": person.password is not None,
        "roles": sorted(role.name for role in person.roles),
        "passkeys": len(person.webauthn),
        "authenticator_app": person.sealed_totp_secret is not None,
        "second_factor_required": person.must_have_second_factor,
        "created_at": person.created_at.isoformat(),
        "last_signed_in_at": last.isoformat() if last else None,
    }


def _role_names() -> Sequence[str]:
    return db.session.scalars(select(Role.name).order_by(Role.name)).all()
