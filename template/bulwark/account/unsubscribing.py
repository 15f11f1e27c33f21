"""`/unsubscribe/<token>`: ends a list of emails, without a sign-in (RFC 8058).

Mail providers send the POST for their users, from their own servers and without
cookies. So it has no CSRF token. The signed link itself allows it: whoever has the
email may end the list, and can do nothing else. GET changes nothing, because programs
that check links open them.
"""

from flask import Blueprint, abort, render_template, request
from flask.typing import ResponseReturnValue

from bulwark.database import db
from bulwark.identity.csrf import csrf
from bulwark.mail import opt_outs
from bulwark.web.access import public

blueprint = Blueprint("unsubscribing", __name__)


@blueprint.route("/unsubscribe/<token>", methods=["GET", "POST"])
@public
@csrf.exempt  # type: ignore[untyped-decorator]
def unsubscribe(token: str) -> ResponseReturnValue:
    """Ask on GET; on POST, unsubscribe the address of the link, or undo it."""
    found = opt_outs.read(token)
    if found is None:
        abort(404, "This link is incomplete or no longer valid.")
    name, key = found
    if request.method == "POST":
        if request.form.get("List-Unsubscribe") == "One-Click":
            opt_outs.add(key)
        elif request.form.get("List-Unsubscribe") == "Undo":
            opt_outs.remove(key)
        else:
            abort(400, "The request must contain List-Unsubscribe=One-Click.")
        db.session.commit()
    return render_template(
        "bulwark/unsubscribe.html", name=name, is_out=opt_outs.is_out(key)
    )
