"""The account pages of the current user: second factors, sessions and recent activity.

Flask-Security handles the set-up of factors, see `identity/factors.py`.
"""

from datetime import datetime
from typing import Any

from flask import (
    Blueprint,
    Flask,
    abort,
    flash,
    jsonify,
    redirect,
    render_template,
    request,
    url_for,
)
from flask.typing import ResponseReturnValue
from flask_login import current_user
from sqlalchemy import Select, select

from bulwark.audit import events
from bulwark.audit.catalogue import CATALOGUE
from bulwark.audit.events import SecurityEvent
from bulwark.database import db
from bulwark.identity import devices, sessions
from bulwark.web.access import recent, signed_in, while_setting_up
from bulwark.web.errors import wants_json

LATEST = 5
PAGE = 25
NEWEST = 2**63 - 1  # The maximum id in a database.
FEW_CODES = 3
TOLD = [name for name, kind in CATALOGUE.items() if kind.user_text]

blueprint = Blueprint("account", __name__)


def init_app(app: Flask) -> None:
    """Register the account pages."""
    app.register_blueprint(blueprint)


@blueprint.get("/account")
@signed_in
def index() -> ResponseReturnValue:
    """Show the sign-in methods, sessions and recent activity of the user."""
    open_sessions = [sessions.to_dict(row) for row in sessions.for_user(current_user)]
    latest = db.session.scalars(_history().limit(LATEST))
    recent = [_facts_of_event(event) for event in latest]
    codes_left = len(current_user.mf_recovery_codes)
    if wants_json():
        return jsonify(
            email=current_user.email,
            passkeys=[
                {
                    "name": key.name,
                    "added_at": key.created_at.isoformat(),
                    "last_used_at": key.lastuse_datetime.isoformat(),
                }
                for key in current_user.webauthn
            ],
            authenticator_app=current_user.sealed_totp_secret is not None,
            recovery_codes_left=codes_left,
            sessions=len(open_sessions),
            activity=_plain(recent),
        )
    return render_template(
        "bulwark/account.html",
        sessions=open_sessions,
        activity=recent,
        codes_left=codes_left,
        few_codes=FEW_CODES,
    )


@blueprint.get("/account/sessions")
@signed_in
def session_list() -> ResponseReturnValue:
    """List the sessions of the user."""
    open_sessions = [sessions.to_dict(row) for row in sessions.for_user(current_user)]
    if wants_json():
        return jsonify(sessions=_plain(open_sessions))
    return render_template("bulwark/sessions.html", sessions=open_sessions)


@blueprint.post("/account/sessions/<int(max=2147483647):session_id>/end")
@signed_in
@recent
def end_session(session_id: int) -> ResponseReturnValue:
    """End one of the user's own sessions."""
    if not sessions.end(current_user, session_id):
        abort(404)
    events.record("session_revoked", current_user, ended=1)
    return _ended(1, "The session is signed out.")


@blueprint.post("/account/sessions/end-others")
@signed_in
@recent
def end_other_sessions() -> ResponseReturnValue:
    """End all sessions of the user except the current one."""
    ended = sessions.end_others(current_user)
    if ended:
        events.record("session_revoked", current_user, ended=ended)
    return _ended(ended, "You are signed out everywhere else.")


@blueprint.get("/account/activity")
@signed_in
def activity() -> ResponseReturnValue:
    """List the activity of the account, newest first, a page at a time."""
    before = max(0, min(request.args.get("before", NEWEST, type=int), NEWEST))
    found = db.session.scalars(
        _history().where(SecurityEvent.id < before).limit(PAGE + 1)
    ).all()
    page = [_facts_of_event(event) for event in found[:PAGE]]
    older = page[-1]["id"] if len(found) > PAGE else None
    if wants_json():
        return jsonify(activity=_plain(page), older_than=older)
    return render_template("bulwark/activity.html", activity=page, older=older)


@blueprint.get("/account/second-factor")
@signed_in
@while_setting_up
def second_factor() -> ResponseReturnValue:
    """Offer a choice of second factors, to users who need or want one."""
    return render_template("bulwark/second_factor.html")


@blueprint.get("/account/second-factor/done")
@signed_in
def factors_changed() -> ResponseReturnValue:
    """Redirect users with a second factor but no recovery codes to those."""
    if current_user.has_second_factor and not current_user.mf_recovery_codes:
        return redirect(url_for("security.mf_recovery_codes"))
    return redirect(url_for(".index"))


def _ended(count: int, said: str) -> ResponseReturnValue:
    if wants_json():
        return jsonify(ended=count)
    flash(said, "success")
    return redirect(url_for(".session_list"))


def _history() -> Select[SecurityEvent]:
    return (
        select(SecurityEvent)
        .where(SecurityEvent.user_id == current_user.id, SecurityEvent.name.in_(TOLD))
        .order_by(SecurityEvent.at.desc(), SecurityEvent.id.desc())
    )


def _facts_of_event(event: SecurityEvent) -> dict[str, Any]:
    """Return an event for its user, without the location of administrators."""
    return {
        "id": event.id,
        "at": event.at,
        "name": event.name,
        "text": event.kind.user_text,
        "factor": event.factor or None,
        "by": event.by or None,
        "device": None if event.by else devices.name_of(event.user_agent),
        "address": None if event.by else event.address,
    }


def _plain(facts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the dictionaries with their times as JSON strings."""
    return [
        {
            name: value.isoformat() if isinstance(value, datetime) else value
            for name, value in one.items()
        }
        for one in facts
    ]
