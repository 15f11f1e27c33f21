"""The choice of a second factor, and the next step once one is set up.

Flask-Security handles the set-up itself, see `identity/security/second_factors.py`.
"""

from flask import redirect, render_template, url_for
from flask.typing import ResponseReturnValue
from flask_login import current_user

from bulwark.account.blueprint import blueprint
from bulwark.web.access import signed_in, while_setting_up


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
