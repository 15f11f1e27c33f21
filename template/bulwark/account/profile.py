"""The page where users change the fields of the team's own."""

from flask import abort, flash, jsonify, redirect, render_template, url_for
from flask.typing import ResponseReturnValue
from flask_login import current_user
from flask_security.utils import base_render_json
from wtforms import SubmitField

from bulwark.account.blueprint import blueprint
from bulwark.audit import events
from bulwark.database import db
from bulwark.identity import profile, sign_up_options
from bulwark.identity.form_data import subclass, submitted
from bulwark.web.access import signed_in
from bulwark.web.errors import wants_json


@blueprint.route("/account/profile", methods=["GET", "POST"], endpoint="profile")
@signed_in
def edit() -> ResponseReturnValue:
    """Show the form with the values of the user, and store the submitted ones."""
    kind = sign_up_options.current().form
    if kind is None:
        abort(404)
    with_button = subclass(kind, {"submit": SubmitField("Save")})
    form = with_button(formdata=submitted(), obj=current_user)
    if form.validate_on_submit():
        if changed := profile.fill(current_user, form):
            events.record("user_updated", current_user, fields=changed)
            db.session.commit()
        if wants_json():
            return jsonify(profile.to_dict(kind, current_user))
        flash("Your profile was saved.", "success")
        return redirect(url_for("account.index"))
    if not wants_json():
        return render_template("bulwark/profile.html", form=form)
    if form.errors:
        return base_render_json(form, include_user=False)
    return jsonify(profile.to_dict(kind, current_user))
