"""The page of access tokens: list, create and revoke one's own."""

from typing import Any

from flask import (
    Blueprint,
    abort,
    current_app,
    flash,
    jsonify,
    redirect,
    render_template,
    url_for,
)
from flask.typing import ResponseReturnValue
from flask_login import current_user
from flask_security import forms as stock
from werkzeug.datastructures import MultiDict
from wtforms import (
    SelectField,
    SelectMultipleField,
    StringField,
    SubmitField,
    ValidationError,
)
from wtforms.validators import DataRequired, Length
from wtforms.widgets import CheckboxInput, ListWidget

from bulwark.database import db
from bulwark.identity import tokens
from bulwark.identity.form_data import submitted
from bulwark.identity.models import permissions_for
from bulwark.identity.tokens import NAME_LENGTH, AccessToken
from bulwark.web.access import recent, signed_in
from bulwark.web.errors import wants_json

DAYS = ("1", "7", "30", "90", "365")

blueprint = Blueprint("tokens", __name__, url_prefix="/account/tokens")


class TokenForm(stock.Form):
    """The form that creates a token."""

    name = StringField(
        "Name",
        description="What it is for, such as “Nightly report”.",
        filters=[lambda text: text.strip() if isinstance(text, str) else text],
        validators=[
            stock.IsString(),
            DataRequired("Enter a name, so that you can recognize it later."),
            Length(max=NAME_LENGTH, message=f"Use {NAME_LENGTH} characters at most."),
        ],
        render_kw={"autocomplete": "off", "maxlength": NAME_LENGTH},
    )
    permissions = SelectMultipleField(
        "Permissions", widget=ListWidget(), option_widget=CheckboxInput()
    )
    days = SelectField("Days until it expires", choices=DAYS, default="30")
    submit = SubmitField("Create token")

    def __init__(self, formdata: MultiDict[str, Any] | None) -> None:
        super().__init__(formdata)
        meanings = current_app.extensions["permissions"]
        self.permissions.choices = [
            (name, f"{meanings[name]} ({name})") for name in _grantable()
        ]

    def validate_name(self, field: StringField) -> None:
        """Reject non-printable characters."""
        if not field.data.isprintable():
            raise ValidationError("Use letters, digits and symbols.")

    def validate_permissions(self, field: SelectMultipleField) -> None:
        """Require one; browsers would apply `required` to each checkbox."""
        if not field.data:
            raise ValidationError("Choose at least one.")


@blueprint.route("", methods=["GET", "POST"])
@signed_in
@recent
def index() -> ResponseReturnValue:
    """List the user's tokens, or create one, which is shown only once."""
    form = TokenForm(submitted())
    text = None
    if form.validate_on_submit():
        days = int(form.days.data)
        text, token = tokens.make(
            current_user, form.name.data, form.permissions.data, days
        )
        db.session.commit()
        if wants_json():
            return jsonify(token=text, **_to_dict(token)), 201
    elif form.errors and wants_json():
        return jsonify(error="That did not work", fields=form.errors), 400
    listed = tokens.for_user(current_user)
    if wants_json():
        return jsonify(
            tokens=[_to_dict(token) for token in listed],
            grantable=_grantable(),
            days=list(map(int, DAYS)),
        )
    return render_template("bulwark/tokens.html", form=form, made=text, tokens=listed)


@blueprint.post("/<int(max=2147483647):token_id>/revoke")
@signed_in
def end(token_id: int) -> ResponseReturnValue:
    """Revoke one of the user's own tokens."""
    if all(token.id != token_id for token in tokens.for_user(current_user)):
        abort(404)
    tokens.revoke(current_user, token_id)
    if wants_json():
        return jsonify(revoked=token_id)
    flash("The token was revoked. Programs can no longer use it.", "success")
    return redirect(url_for(".index"))


def _grantable() -> list[str]:
    """Return the permissions that a user may grant to a token: their own."""
    known = current_app.extensions["permissions"]
    return sorted(permissions_for(current_user) & known.keys())


def _to_dict(token: AccessToken) -> dict[str, Any]:
    times = ("created_at", "expires_at", "last_used_at", "revoked_at")
    return {
        "id": token.id,
        "name": token.name,
        "permissions": token.permissions,
        **{name: (at := getattr(token, name)) and at.isoformat() for name in times},
    }
