"""The pages of sessions: list and end one's own."""

from flask import abort, flash, jsonify, redirect, render_template, url_for
from flask.typing import ResponseReturnValue
from flask_login import current_user

from bulwark.account.blueprint import blueprint, to_json
from bulwark.audit import events
from bulwark.identity import sessions
from bulwark.web.access import recent, signed_in
from bulwark.web.errors import wants_json


@blueprint.get("/account/sessions")
@signed_in
def session_list() -> ResponseReturnValue:
    """List the sessions of the user."""
    open_sessions = [sessions.to_dict(row) for row in sessions.for_user(current_user)]
    if wants_json():
        return jsonify(sessions=to_json(open_sessions))
    return render_template("bulwark/sessions.html", sessions=open_sessions)


@blueprint.post("/account/sessions/<int(max=2147483647):session_id>/end")
@signed_in
@recent
def end_session(session_id: int) -> ResponseReturnValue:
    """End one of the user's own sessions."""
    if not sessions.end(current_user, session_id):
        abort(404)
    events.record("session_revoked", current_user, ended=1)
    return _respond(1, "The session is signed out.")


@blueprint.post("/account/sessions/end-others")
@signed_in
@recent
def end_other_sessions() -> ResponseReturnValue:
    """End all sessions of the user except the current one."""
    ended = sessions.end_others(current_user)
    if ended:
        events.record("session_revoked", current_user, ended=ended)
    return _respond(ended, "You are signed out everywhere else.")


def _respond(count: int, message: str) -> ResponseReturnValue:
    if wants_json():
        return jsonify(ended=count)
    flash(message, "success")
    return redirect(url_for(".session_list"))
