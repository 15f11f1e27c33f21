"""The account page: sign-in methods, sessions and recent activity."""

from typing import Any

from flask import jsonify, render_template
from flask.typing import ResponseReturnValue
from flask_login import current_user

from bulwark.account import activity
from bulwark.account.blueprint import blueprint, to_json
from bulwark.database import db
from bulwark.identity import profile, sessions, sign_up_options
from bulwark.web.access import signed_in
from bulwark.web.errors import wants_json

LATEST = 5
FEW_CODES = 3


@blueprint.get("/account")
@signed_in
def index() -> ResponseReturnValue:
    """Show the sign-in methods, sessions and recent activity of the user."""
    open_sessions = [sessions.to_dict(row) for row in sessions.for_user(current_user)]
    found = db.session.scalars(activity.history().limit(LATEST))
    latest = [activity.to_dict(event) for event in found]
    codes_left = len(current_user.mf_recovery_codes)
    own = sign_up_options.current().form
    if wants_json():
        return jsonify(
            email=current_user.email,
            profile=profile.to_dict(own, current_user),
            passkeys=_passkeys(),
            authenticator_app=current_user.sealed_totp_secret is not None,
            recovery_codes_left=codes_left,
            sessions=len(open_sessions),
            activity=to_json(latest),
        )
    return render_template(
        "bulwark/account.html",
        profile=profile.rows(own, current_user),
        sessions=open_sessions,
        activity=latest,
        codes_left=codes_left,
        few_codes=FEW_CODES,
    )


def _passkeys() -> list[dict[str, Any]]:
    return [
        {
            "name": key.name,
            "added_at": key.created_at.isoformat(),
            "last_used_at": key.lastuse_datetime.isoformat(),
        }
        for key in current_user.webauthn
    ]
