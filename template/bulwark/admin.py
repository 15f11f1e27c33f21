"""Administration: people, roles, and the security history of everybody.

What is done is in `identity/accounts.py`. Each act has a page of its own that asks why:
there one comes back to after showing once more that it is still oneself.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, NoReturn

from flask import (
    Blueprint,
    Flask,
    abort,
    current_app,
    flash,
    jsonify,
    redirect,
    render_template,
    request,
    url_for,
)
from flask.typing import ResponseReturnValue
from flask_login import current_user
from flask_security import forms as stock
from sqlalchemy import Select, func, or_, select
from sqlalchemy.orm import selectinload
from wtforms import (
    BooleanField,
    EmailField,
    SelectMultipleField,
    StringField,
    SubmitField,
)
from wtforms.validators import DataRequired, Length, Regexp
from wtforms.widgets import CheckboxInput, ListWidget

from bulwark import events
from bulwark.access import permission, recent
from bulwark.database import db, utcnow
from bulwark.errors import wants_json
from bulwark.events import SecurityEvent
from bulwark.identity import accounts, devices, sessions
from bulwark.identity.models import (
    ADMINISTRATOR,
    EMAIL_LENGTH,
    BaseUser,
    Role,
    permissions_of,
    users_roles,
)

PAGE = 50
LATEST = 20
# Counting stops here: what is counted is also read.
MOST_COUNTED = 1000
USUAL_SPAN = timedelta(days=30)
# The greatest numbers of columns: more would be a fault of the database.
INTEGER, BIG_INTEGER = 2**31 - 1, 2**63 - 1
REASON_LENGTH = 200

USER = "/users/<int(max=2147483647):user_id>"
SESSION = "/sessions/<int(max=2147483647):session_id>"
ROLE = "/roles/<int(max=2147483647):role_id>"
FORM = ["GET", "POST"]

blueprint = Blueprint("admin", __name__, url_prefix="/admin")
Do = Callable[..., object]


def init_app(app: Flask) -> None:
    """Serve the pages."""
    app.register_blueprint(blueprint)


def _reason() -> StringField:
    return StringField(
        "Reason",
        description="One line, kept in the security history. No secrets, nothing"
        " personal.",
        validators=[
            stock.IsString(),
            DataRequired("Write in a few words why."),
            Length(max=REASON_LENGTH, message=f"Use {REASON_LENGTH} letters at most."),
            Regexp(r"^[^\x00-\x1f\x7f]*\Z", message="Write one line of plain text."),
        ],
        render_kw={"autocomplete": "off", "maxlength": REASON_LENGTH},
    )


class ReasonForm(stock.Form):
    """Say why."""

    reason = _reason()
    submit = SubmitField()


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
    reason = _reason()
    submit = SubmitField("Invite")


class RoleForm(stock.Form):
    """Say what a role allows."""

    name = StringField(
        "Name",
        description="Small letters, digits, blanks, - and _, such as “night shift”.",
        validators=[stock.IsString(), DataRequired("Give the role a name.")],
        render_kw={"autocomplete": "off", "maxlength": 80},
    )
    permissions = SelectMultipleField(
        "What people with this role may do",
        widget=ListWidget(),
        option_widget=CheckboxInput(),
    )
    requires_second_factor = BooleanField("People with this role need a second factor")
    reason = _reason()
    submit = SubmitField("Save")

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        own = permissions_of(current_user.roles)
        self.permissions.choices = [
            (name, f"{meaning} ({name})")
            for name, meaning in current_app.extensions["permissions"].items()
            if name in own
        ]


# --- People ---------------------------------------------------------------------------


@blueprint.get("/users")
@permission("users:read")
def users() -> ResponseReturnValue:
    """List people, the newest first, a page at a time."""
    query = _people()
    person = _person_model()
    counted = query.with_only_columns(person.id).limit(MOST_COUNTED + 1).subquery()
    count = db.session.scalar(select(func.count()).select_from(counted)) or 0
    found = db.session.scalars(
        query.where(person.id < _before(INTEGER))
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
    )


@blueprint.get(USER)
@permission("users:read")
def user(user_id: int) -> ResponseReturnValue:
    """Show one person: roles, factors, sessions and what happened to the account."""
    person = db.get_or_404(_person_model(), user_id)
    open_sessions = sessions.of(person)
    latest = db.session.scalars(
        select(SecurityEvent)
        .where(SecurityEvent.user_id == user_id)
        .order_by(SecurityEvent.at.desc(), SecurityEvent.id.desc())
        .limit(LATEST)
    ).all()
    if wants_json():
        return jsonify(
            **_facts_of_user(person),
            sessions=[_facts_of_session(row) for row in open_sessions],
        )
    return render_template(
        "bulwark/admin/user.html",
        user=person,
        sessions=[_facts_of_session(row) for row in open_sessions],
        events=_facts_of_events(latest),
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

    return _act(
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
    person = _managed(user_id)
    return _act_on(
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
    person = _managed(user_id)
    return _act_on(
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
    person = _managed(user_id)
    return _act_on(
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
    person = _managed(user_id)
    return _act_on(
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
    person = _managed(user_id)
    return _act_on(
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
    person = _managed(user_id)
    return _act_on(
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
    person = _managed(user_id)
    row = next((s for s in sessions.of(person) if s.id == session_id), None)
    if row is None:
        abort(404)
    facts = _facts_of_session(row)
    return _act_on(
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
    person, role = _managed(user_id), _managed_role(role_id)
    return _act_on(
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
    person, role = _managed(user_id), _managed_role(role_id)
    return _act_on(
        person,
        lambda **why: accounts.take_role(person, role, **why),
        title=f"Take the role {role.name} from {person.email}",
        text=f"From their next click on they may no longer: {_may(role)}",
        button="Take the role away",
        done=f"{person.email} has the role {role.name} no longer.",
    )


# --- Roles ----------------------------------------------------------------------------


@blueprint.get("/roles")
@permission("users:read")
def roles() -> ResponseReturnValue:
    """List roles, what they allow and how many people have them."""
    query = select(users_roles.c.role_id, func.count()).group_by(users_roles.c.role_id)
    held: dict[int, int] = dict(db.session.execute(query).all())
    found = db.session.scalars(select(Role).order_by(Role.name)).all()
    if wants_json():
        return jsonify(
            roles=[
                {
                    "id": role.id,
                    "name": role.name,
                    "permissions": sorted(role.get_permissions()),
                    "requires_second_factor": role.requires_second_factor,
                    "people": held.get(role.id, 0),
                }
                for role in found
            ]
        )
    return render_template(
        "bulwark/admin/roles.html",
        roles=found,
        held=held,
        meanings=current_app.extensions["permissions"],
        declared=current_app.extensions["roles"],
        administrator=ADMINISTRATOR,
        may_manage=accounts.may_manage,
    )


@blueprint.route("/roles/new", methods=FORM)
@permission("roles:write")
@recent
def new_role() -> ResponseReturnValue:
    """Make a role."""
    form = RoleForm()
    return _act(
        form,
        lambda **why: accounts.make_role(form.name.data.strip(), *_chosen(form), **why),
        title="Make a role",
        text="You can put into it what you may do yourself.",
        done="The role is made.",
        back=url_for(".roles"),
    )


@blueprint.route(ROLE, methods=FORM)
@permission("roles:write")
@recent
def role(role_id: int) -> ResponseReturnValue:
    """Change what a role allows."""
    found = _managed_role(role_id)
    form = RoleForm(obj=found)
    del form.name
    return _act(
        form,
        lambda **why: accounts.change_role(found, *_chosen(form), **why),
        title=f"Change the role {found.name}",
        text="People who have it notice at their next click.",
        done=f"The role {found.name} is changed.",
        back=url_for(".roles"),
    )


@blueprint.route(f"{ROLE}/delete", methods=FORM)
@permission("roles:write")
@recent
def delete_role(role_id: int) -> ResponseReturnValue:
    """Delete a role that nobody has."""
    found = _managed_role(role_id)
    name = found.name
    form = ReasonForm()
    form.submit.label.text = "Delete the role"
    return _act(
        form,
        lambda **why: accounts.delete_role(found, **why),
        title=f"Delete the role {name}",
        text="Only a role that nobody has can be deleted.",
        done=f"The role {name} is deleted.",
        back=url_for(".roles"),
    )


# --- History --------------------------------------------------------------------------


@blueprint.get("/history")
@permission("users:read")
def history() -> ResponseReturnValue:
    """List what happened, the newest first: of 30 days, unless asked for more."""
    first = request.args.get("from", (utcnow() - USUAL_SPAN).date().isoformat())
    query = _events(first).order_by(SecurityEvent.at.desc(), SecurityEvent.id.desc())
    found = db.session.scalars(query.limit(PAGE + 1)).all()
    page = _facts_of_events(found[:PAGE])
    older = page[-1]["id"] if len(found) > PAGE else None
    if wants_json():
        return jsonify(
            events=[fact | {"at": fact["at"].isoformat()} for fact in page],
            before=older,
        )
    return render_template(
        "bulwark/admin/history.html",
        events=page,
        older=older,
        first=first,
        kinds=events.CATALOGUE,
    )


# --- What the pages share -------------------------------------------------------------


def _act_on(
    person: BaseUser, do: Do, *, title: str, text: str, button: str, done: str
) -> ResponseReturnValue:
    """Ask why, act on a person, and go back to them."""
    form = ReasonForm()
    form.submit.label.text = button
    back = url_for(".user", user_id=person.id)
    return _act(form, do, title=title, text=text, done=done, back=back)


def _act(
    form: Any, do: Do, *, title: str, text: str, done: str, back: str
) -> ResponseReturnValue:
    """Show a form until it is filled in well, then do what it asks for."""
    status = 400
    if form.validate_on_submit():
        who = current_user._get_current_object()
        try:
            do(by=who, reason=form.reason.data.strip())
        except accounts.NotAllowedError as error:
            _deny(str(error))
        except accounts.RefusedError as error:
            db.session.rollback()
            form.form_errors = [str(error)]
            status = 409
        else:
            db.session.commit()
            if wants_json():
                return jsonify(done=done)
            flash(done, "success")
            return redirect(back)
    if request.method == "POST" and wants_json():
        said = [error for errors in form.errors.values() for error in errors]
        return jsonify(error=" ".join(map(str, said))), status
    return render_template(
        "bulwark/admin/action.html", form=form, title=title, text=text, back=back
    )


def _deny(reason: str) -> NoReturn:
    db.session.rollback()
    events.record("authz_fail", current_user, action="escalation")
    abort(403, reason)


def _managed(user_id: int) -> BaseUser:
    """Return somebody whom whoever is signed in may act on."""
    person: BaseUser = db.get_or_404(_person_model(), user_id)
    if not accounts.may_manage(current_user, person.roles):
        _deny("This person may do more than you, so you can only look.")
    return person


def _managed_role(role_id: int) -> Role:
    """Return a role that allows no more than whoever is signed in may do."""
    role = db.get_or_404(Role, role_id)
    if not accounts.may_manage(current_user, [role]):
        _deny("This role allows more than you may do, so you can only look.")
    return role


def _person_model() -> type[BaseUser]:
    model: type[BaseUser] = current_app.extensions["security"].datastore.user_model
    return model


def _role_names() -> Sequence[str]:
    return db.session.scalars(select(Role.name).order_by(Role.name)).all()


def _chosen(form: RoleForm) -> tuple[list[str], bool]:
    return form.permissions.data or [], bool(form.requires_second_factor.data)


def _may(role: Role) -> str:
    meanings = current_app.extensions["permissions"]
    allowed = sorted(meanings.get(name, name) for name in role.get_permissions())
    return "; ".join(allowed) + "." if allowed else "nothing yet."


def _argument(name: str) -> str:
    """Return a part of the query without what PostgreSQL refuses in text."""
    return request.args.get(name, "").strip().replace("\0", "")


def _before(greatest: int) -> int:
    """Return the id that a page begins below, as the page before it says."""
    before = request.args.get("before", greatest, type=int)
    return max(0, min(before, greatest))


def _people() -> Select[BaseUser]:
    """Return the people whom the query asks for.

    A whole address is looked up; a part of one reads every address.
    """
    person = _person_model()
    query = select(person)
    if part := _argument("q").lower():
        known = accounts.find(part) if "@" in part else None
        same = person.id == known.id if known else None
        query = query.where(
            person.email.contains(part, autoescape=True) if same is None else same
        )
    if name := _argument("role"):
        having = select(users_roles.c.user_id).join(Role).where(Role.name == name)
        query = query.where(person.id.in_(having))
    if _argument("locked"):
        query = query.where(person.active.is_(False))
    return query


def _events(first: str) -> Select[SecurityEvent]:
    """Return the events that the query asks for, from the day `first` on."""
    query = select(SecurityEvent)
    if first:
        start = datetime.combine(_day(first), time.min, UTC)
        query = query.where(SecurityEvent.at >= start)
    if last := _argument("to"):
        end = datetime.combine(_day(last), time.max, UTC)
        query = query.where(SecurityEvent.at <= end)
    if name := _argument("name"):
        query = query.where(SecurityEvent.name == name)
    if address := _argument("address"):
        query = query.where(SecurityEvent.address == address)
    if who := _argument("person"):
        query = query.where(SecurityEvent.user_id == _id_of(who))
    cursor = db.session.get(SecurityEvent, _before(BIG_INTEGER))
    if cursor:
        query = query.where(
            SecurityEvent.at <= cursor.at,
            or_(SecurityEvent.at < cursor.at, SecurityEvent.id < cursor.id),
        )
    return query


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        abort(400, "Write a day like 2026-11-21.")


def _id_of(who: str) -> int:
    """Return the id of a person, who may be deleted, from it or an address."""
    if who.isdecimal():
        return min(int(who[:19]), INTEGER)
    found = accounts.find(who)
    return found.id if found else 0


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


def _facts_of_session(row: sessions.UserSession) -> dict[str, Any]:
    return {
        "id": row.id,
        "device": devices.name_of(row.user_agent),
        "address": row.address,
        "signed_in_at": row.created_at,
        "last_used_at": row.last_used_at,
        "current": row.id == sessions.current_id(),
    }


def _facts_of_events(found: Sequence[SecurityEvent]) -> list[dict[str, Any]]:
    """Return events as administrators see them, with addresses of people."""
    ids = {event.user_id for event in found} | {event.actor_id for event in found}
    person = _person_model()
    query = select(person.id, person.email).where(person.id.in_(ids - {None}))
    names: dict[int | None, str] = dict(db.session.execute(query).all())
    return [
        {
            "id": event.id,
            "at": event.at,
            "name": event.name,
            "meaning": event.kind.meaning,
            "user_id": event.user_id,
            "user": names.get(event.user_id),
            "actor_id": event.actor_id,
            "actor": names.get(event.actor_id),
            "reason": event.reason,
            "address": event.address,
            "device": devices.name_of(event.user_agent) if event.user_agent else None,
            "details": event.details,
        }
        for event in found
    ]
