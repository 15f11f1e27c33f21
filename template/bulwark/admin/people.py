"""People: who has an account, and what administrators do about it."""

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

from bulwark import events
from bulwark.access import permission, recent
from bulwark.admin.acts import (
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
from bulwark.database import db
from bulwark.errors import wants_json
from bulwark.events import SecurityEvent
from bulwark.identity import accounts, sessions
from bulwark.identity.models import EMAIL_LENGTH, BaseUser, Role, users_roles

LATEST = 20
# Counting stops here: what is counted is also read.
MOST_COUNTED = 1000
INTEGER = 2**31 - 1  # The greatest id: more would be a fault of the database.
USER = "/users/<int(max=2147483647):user_id>"
SESSION = "/sessions/<int(max=2147483647):session_id>"


class InviteForm(stock.Form):
    """Say whom to invite."""

    email = EmailField(
        "E-mail address",
        validators=[
            stock.IsString(),
            DataRequired("Write an e-mail address."),
            Length(max=EMAIL_LENGTH, message="This is too long for an address."),
        ],
        render_kw={"autocomplete": "off"},
    )
    reason = reason_field()
    submit = SubmitField("Invite")


@blueprint.get("/users")
@permission("users:read")
def users() -> ResponseReturnValue:
    """List people, the newest first, a page at a time."""
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
    """Show one person: roles, factors, sessions and what happened to the account."""
    person = db.get_or_404(person_model(), user_id)
    open_sessions = sessions.of(person)
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
            sessions=[sessions.facts(row) for row in open_sessions],
        )
    return render_template(
        "bulwark/admin/user.html",
        user=person,
        sessions=[sessions.facts(row) for row in open_sessions],
        events=facts_of_events(latest),
        roles=db.session.scalars(select(Role).order_by(Role.name)).all(),
        may_manage=accounts.may_manage,
    )


@blueprint.route("/users/invite", methods=FORM)
@permission("users:write")
@recent
def invite() -> ResponseReturnValue:
    """Make an account for an address, and mail its owner a link."""
    form = InviteForm()

    def do(**why: Any) -> None:
        person, link = accounts.invite(form.email.data, **why)
        accounts.mail_invitation(person, link)

    return act(
        form,
        do,
        title="Invite somebody",
        text="They get a mail with a link, and choose a password themselves.",
        done="The invitation is on its way.",
        back=url_for(".users"),
    )


@blueprint.route(f"{USER}/lock", methods=FORM)
@permission("users:write")
@recent
def lock(user_id: int) -> ResponseReturnValue:
    """Keep a person out."""
    person = managed(user_id)
    return act_on(
        person,
        lambda **why: accounts.lock(person, **why),
        title=f"Lock {person.email}",
        text="They are signed out everywhere at once, and can't sign in until somebody"
        " unlocks the account.",
        button="Lock the account",
        done=f"{person.email} is locked and signed out.",
    )


@blueprint.route(f"{USER}/unlock", methods=FORM)
@permission("users:write")
@recent
def unlock(user_id: int) -> ResponseReturnValue:
    """Let a person sign in again."""
    person = managed(user_id)
    return act_on(
        person,
        lambda **why: accounts.unlock(person, **why),
        title=f"Unlock {person.email}",
        text="They can sign in again, with the password and factors they had.",
        button="Unlock the account",
        done=f"{person.email} can sign in again.",
    )


@blueprint.route(f"{USER}/reset", methods=FORM)
@permission("users:write")
@recent
def reset(user_id: int) -> ResponseReturnValue:
    """Make a person choose a new password."""
    person = managed(user_id)
    return act_on(
        person,
        lambda **why: accounts.force_reset(person, **why),
        title=f"A new password for {person.email}",
        text="Their password stops working, they are signed out everywhere, access"
        " tokens are revoked, and a mail lets them choose another password. Second"
        " factors stay.",
        button="Ask for a new password",
        done=f"{person.email} is signed out and gets a mail to choose a new password.",
    )


@blueprint.route(f"{USER}/second-factor/require", methods=FORM)
@permission("users:write")
@recent
def require_factor(user_id: int) -> ResponseReturnValue:
    """Make a person have a second factor."""
    person = managed(user_id)
    return act_on(
        person,
        lambda **why: accounts.require_second_factor(person, True, **why),
        title=f"Require a second factor of {person.email}",
        text="Until they have one, they can do nothing here but set it up.",
        button="Require it",
        done=f"{person.email} needs a second factor now.",
    )


@blueprint.route(f"{USER}/second-factor/allow-without", methods=FORM)
@permission("users:write")
@recent
def allow_without_factor(user_id: int) -> ResponseReturnValue:
    """Leave a second factor to a person's roles, and to their own wish."""
    person = managed(user_id)
    return act_on(
        person,
        lambda **why: accounts.require_second_factor(person, False, **why),
        title=f"No longer require a second factor of {person.email}",
        text="A role that they have may still require one. What they set up stays.",
        button="No longer require it",
        done=f"{person.email} needs no second factor, unless a role requires it.",
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
        text="All their sessions end at once. They can sign in again.",
        button="End all sessions",
        done=f"{person.email} is signed out everywhere.",
    )


@blueprint.route(f"{USER}{SESSION}/end", methods=FORM)
@permission("users:write")
@recent
def end_session(user_id: int, session_id: int) -> ResponseReturnValue:
    """End one session of a person."""
    person = managed(user_id)
    row = next((s for s in sessions.of(person) if s.id == session_id), None)
    if row is None:
        abort(404)
    facts = sessions.facts(row)
    return act_on(
        person,
        lambda **why: accounts.sign_out(person, session_id, **why),
        title=f"End a session of {person.email}",
        text=f"{facts['device']}, from {facts['address']}. They can sign in again.",
        button="End the session",
        done="The session is ended.",
    )


@blueprint.route(f"{USER}{ROLE}/give", methods=FORM)
@permission("roles:write")
@recent
def give_role(user_id: int, role_id: int) -> ResponseReturnValue:
    """Give a person a role."""
    person, role = managed(user_id), managed_role(role_id)
    return act_on(
        person,
        lambda **why: accounts.give_role(person, role, **why),
        title=f"Give {person.email} the role {role.name}",
        text=f"From their next click on they may: {_may(role)}",
        button="Give the role",
        done=f"{person.email} has the role {role.name}.",
    )


@blueprint.route(f"{USER}{ROLE}/take", methods=FORM)
@permission("roles:write")
@recent
def take_role(user_id: int, role_id: int) -> ResponseReturnValue:
    """Take a role from a person."""
    person, role = managed(user_id), managed_role(role_id)
    return act_on(
        person,
        lambda **why: accounts.take_role(person, role, **why),
        title=f"Take the role {role.name} from {person.email}",
        text=f"From their next click on they may no longer: {_may(role)}",
        button="Take the role away",
        done=f"{person.email} has the role {role.name} no longer.",
    )


def _may(role: Role) -> str:
    meanings = current_app.extensions["permissions"]
    allowed = sorted(meanings.get(name, name) for name in role.get_permissions())
    return "; ".join(allowed) + "." if allowed else "nothing yet."


def _people() -> Select[BaseUser]:
    """Return the people whom the query asks for.

    A whole address is looked up; a part of one reads every address.
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
