"""The page that invites a user by email."""

from typing import Any

from flask import url_for
from flask.typing import ResponseReturnValue
from flask_security import forms as stock
from wtforms import EmailField, SubmitField
from wtforms.validators import DataRequired, Length

from bulwark.admin.confirmation import FORM, act, blueprint, reason_field
from bulwark.identity import invitations
from bulwark.identity.models import EMAIL_LENGTH
from bulwark.web.access import permission, recent


class InviteForm(stock.Form):
    """The form that invites a user by email."""

    email = EmailField(
        "Email address",
        validators=[
            stock.IsString(),
            DataRequired("Enter an email address."),
            Length(max=EMAIL_LENGTH, message="This email address is too long."),
        ],
        render_kw={"autocomplete": "off"},
    )
    reason = reason_field()
    submit = SubmitField("Invite")


@blueprint.route("/users/invite", methods=FORM)
@permission("users:write")
@recent
def invite() -> ResponseReturnValue:
    """Create an account for an email address, and email its owner a link."""
    form = InviteForm()

    def do(**why: Any) -> None:
        user, link = invitations.invite(form.email.data, **why)
        invitations.send(user, link)

    return act(
        form,
        do,
        title="Invite a user",
        text="They receive an email with a link to choose their own password.",
        done="The invitation is on its way.",
        back=url_for(".users"),
    )
