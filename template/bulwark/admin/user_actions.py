"""The actions of administrators on one account, each on a page of its own."""

from flask import abort
from flask.typing import ResponseReturnValue

from bulwark.admin.confirmation import FORM, USER, act_on, blueprint, managed
from bulwark.identity import accounts, sessions
from bulwark.web.access import permission, recent

SESSION = "/sessions/<int(max=2147483647):session_id>"


@blueprint.route(f"{USER}/lock", methods=FORM)
@permission("users:write")
@recent
def lock(user_id: int) -> ResponseReturnValue:
    """Lock an account."""
    user = managed(user_id)
    return act_on(
        user,
        lambda **why: accounts.lock(user, **why),
        title=f"Lock {user.email}",
        text="They are signed out everywhere immediately, and can't sign in until the"
        " account is unlocked.",
        button="Lock the account",
        done=f"{user.email} is locked and signed out.",
    )


@blueprint.route(f"{USER}/unlock", methods=FORM)
@permission("users:write")
@recent
def unlock(user_id: int) -> ResponseReturnValue:
    """Unlock an account."""
    user = managed(user_id)
    return act_on(
        user,
        lambda **why: accounts.unlock(user, **why),
        title=f"Unlock {user.email}",
        text="They can sign in again, with their existing password and second factors.",
        button="Unlock the account",
        done=f"{user.email} can sign in again.",
    )


@blueprint.route(f"{USER}/reset", methods=FORM)
@permission("users:write")
@recent
def reset(user_id: int) -> ResponseReturnValue:
    """Require a user to choose a new password."""
    user = managed(user_id)
    return act_on(
        user,
        lambda **why: accounts.force_reset(user, **why),
        title=f"Reset the password of {user.email}",
        text="Their password stops working, they are signed out everywhere, access"
        " tokens are revoked, and they receive an email to choose a new password. Their"
        " second factors stay.",
        button="Reset the password",
        done=f"{user.email} is signed out. An email with a link is on its way.",
    )


@blueprint.route(f"{USER}/second-factor/require", methods=FORM)
@permission("users:write")
@recent
def require_factor(user_id: int) -> ResponseReturnValue:
    """Require a second factor for an account."""
    user = managed(user_id)
    return act_on(
        user,
        lambda **why: accounts.require_second_factor(user, True, **why),
        title=f"Require a second factor for {user.email}",
        text="Until they set one up, they can't do anything else here.",
        button="Require second factor",
        done=f"{user.email} now needs a second factor.",
    )


@blueprint.route(f"{USER}/second-factor/allow-without", methods=FORM)
@permission("users:write")
@recent
def allow_without_factor(user_id: int) -> ResponseReturnValue:
    """Stop requiring a second factor for an account, unless a role requires one."""
    user = managed(user_id)
    return act_on(
        user,
        lambda **why: accounts.require_second_factor(user, False, **why),
        title=f"Stop requiring a second factor for {user.email}",
        text="One of their roles may still require one. Their existing factors stay.",
        button="Stop requiring it",
        done=f"{user.email} needs no second factor, unless a role requires one.",
    )


@blueprint.route(f"{USER}/sessions/end", methods=FORM)
@permission("users:write")
@recent
def end_sessions(user_id: int) -> ResponseReturnValue:
    """Sign a user out everywhere."""
    user = managed(user_id)
    return act_on(
        user,
        lambda **why: accounts.sign_out(user, **why),
        title=f"Sign {user.email} out",
        text="All their sessions end immediately. They can sign in again.",
        button="End all sessions",
        done=f"{user.email} is signed out everywhere.",
    )


@blueprint.route(f"{USER}{SESSION}/end", methods=FORM)
@permission("users:write")
@recent
def end_session(user_id: int, session_id: int) -> ResponseReturnValue:
    """End one session of a user."""
    user = managed(user_id)
    row = next((s for s in sessions.for_user(user) if s.id == session_id), None)
    if row is None:
        abort(404)
    shown = sessions.to_dict(row)
    return act_on(
        user,
        lambda **why: accounts.sign_out(user, session_id, **why),
        title=f"End a session of {user.email}",
        text=f"{shown['device']}, from {shown['address']}. They can sign in again.",
        button="End the session",
        done="The session has ended.",
    )
