"""The page where signed-in users accept the terms after a change."""

from typing import Any

from flask import abort, jsonify, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_login import current_user
from flask_security import forms as stock
from flask_security.utils import base_render_json
from wtforms import SubmitField

from bulwark.account.blueprint import blueprint
from bulwark.database import db
from bulwark.identity import sign_up_options, terms
from bulwark.identity.form_data import subclass, submitted
from bulwark.identity.sign_up_options import Terms
from bulwark.identity.terms import TermsField
from bulwark.web.access import before_terms, signed_in
from bulwark.web.errors import wants_json


@blueprint.route("/account/terms", methods=["GET", "POST"], endpoint="terms")
@signed_in
@before_terms
def accept() -> ResponseReturnValue:
    """Show which terms the user accepted, and ask for what is missing."""
    current = sign_up_options.current().terms
    if current is None:
        abort(404)
    form = _form(current)
    if current_user.must_accept_terms and form.validate_on_submit():
        terms.accept(current_user)
        db.session.commit()
        if not wants_json():
            return redirect(form.next.data or url_for("account.index"))
    if not wants_json():
        link = terms.link_to(current)
        return render_template("bulwark/terms.html", form=form, link=link)
    if form.errors:
        return base_render_json(form, include_user=False)
    accepted_at = current_user.accepted_terms_at
    return jsonify(
        current_version=current.version,
        accepted_version=current_user.accepted_terms_version,
        accepted_at=accepted_at.isoformat() if accepted_at else None,
        page=terms.link_to(current),
    )


class TermsForm(stock.NextFormMixin, stock.Form):
    """The form that accepts the terms, then returns to the requested page."""


def _form(current: Terms) -> Any:
    fields = {"accept_terms": TermsField(current), "submit": SubmitField("Continue")}
    form = subclass(TermsForm, fields)(formdata=submitted())
    form.next.data = form.next.data or request.args.get("next", "")
    return form
