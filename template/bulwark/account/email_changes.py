"""The pages that change the email address: request, confirm, and stop a change."""

from typing import Any

from flask import Blueprint, Flask, flash, jsonify, redirect, render_template, url_for
from flask.typing import ResponseReturnValue
from flask_login import current_user
from flask_security import forms as stock
from flask_security.utils import base_render_json
from wtforms import EmailField, SubmitField

from bulwark import settings
from bulwark.identity import email_changes
from bulwark.identity.email_changes import LINK_WORKS
from bulwark.identity.form_data import submitted
from bulwark.identity.models import EMAIL_LENGTH
from bulwark.web import attempts, errors
from bulwark.web.access import public, recent, signed_in
from bulwark.web.errors import wants_json

REQUESTS = 5  # by one account, within `LINK_WORKS`
ENDED = (
    "The link was already used, is expired or incomplete, or belongs to another"
    " account. Request a new one here."
)

blueprint = Blueprint("addresses", __name__)


def init_app(app: Flask) -> None:
    """Register the pages; the first two replace those of Flask-Security."""
    for rule, name, view in (
        ("/change-email", "change_email", change_email),
        ("/change-email/<token>", "change_email_confirm", confirm),
    ):
        app.add_url_rule(rule, f"security.{name}", view, methods=["GET", "POST"])
    app.register_blueprint(blueprint)


class ChangeAddressForm(stock.Form):
    """The form that requests a change of address."""

    email = EmailField(
        "New email address",
        validators=[
            stock.IsString(),
            stock.email_required,
            stock.EmailValidation(verify=True),
        ],
        render_kw={"autocomplete": "email", "maxlength": EMAIL_LENGTH},
    )
    submit = SubmitField("Send confirmation email")

    def validate(self, **options: Any) -> bool:
        """Reject the current address, and too many requests by one account."""
        if not super().validate(**options):
            return False
        if self.email.data == current_user.email:
            self.email.errors = ["This is already your email address."]
            return False
        requests = attempts.count("address change", str(current_user.id), LINK_WORKS)
        if requests.count > REQUESTS:
            wait = errors.humanize(requests.seconds_left)
            self.form_errors.append(f"Too many requests. Try again in {wait}.")
            return False
        return True


class ConfirmationForm(stock.Form):
    """The form that confirms or stops a change."""

    submit = SubmitField()


@signed_in
@recent
def change_email() -> ResponseReturnValue:
    """Ask for the new address, and email it a link."""
    form = ChangeAddressForm(formdata=submitted())
    if form.validate_on_submit():
        email_changes.request_change(current_user, form.email.data)
        if not wants_json():
            flash(
                f"We sent an email to {form.email.data}. Open the link in it to confirm"
                " the change. Until then, your address stays the same.",
                "success",
            )
    email = current_user.email
    if wants_json():
        form.user = current_user
        return base_render_json(form, additional={"current_email": email})
    return render_template(
        "security/change_email.html", change_email_form=form, current_email=email
    )


@signed_in
@recent
def confirm(token: str) -> ResponseReturnValue:
    """Show the change, and apply it when the form is submitted."""
    change = email_changes.find_pending(current_user, token)
    if change is None:
        return _respond(ENDED, "error", "security.change_email")
    form = ConfirmationForm(formdata=submitted())
    if form.validate_on_submit():
        if not email_changes.confirm(current_user, change):
            return _respond(ENDED, "error", "security.change_email")
        return _respond("Your email address was changed.", "success", "account.index")
    return render_template(
        "bulwark/confirm_address.html", form=form, email=change.email
    )


@blueprint.route("/change-email/stop/<token>", methods=["GET", "POST"])
@public
def stop(token: str) -> ResponseReturnValue:
    """Let the owner of the old address stop a change that they did not request."""
    admin = settings.current().admin_email
    change = email_changes.find_to_stop(token)
    if change is None:
        return render_template("bulwark/stop_address.html", admin=admin), 404
    form = ConfirmationForm(formdata=submitted())
    if not form.validate_on_submit():
        return render_template("bulwark/stop_address.html", form=form, admin=admin)
    email_changes.stop(change)
    done = "The change was stopped and all devices are signed out. Set a new password."
    return _respond(done, "success", "security.forgot_password")


def _respond(message: str, category: str, endpoint: str) -> ResponseReturnValue:
    if wants_json():
        failed = category == "error"
        key = "error" if failed else "message"
        return jsonify({key: message}), 400 if failed else 200
    flash(message, category)
    return redirect(url_for(endpoint))
