"""Organisations and their members, for agents."""

from typing import Any

from flask import Blueprint, flash, redirect, render_template, url_for
from flask.typing import ResponseReturnValue
from sqlalchemy import func, select
from wtforms import EmailField, StringField, SubmitField
from wtforms.validators import InputRequired, Length, ValidationError

from app.models import Organisation, User
from bulwark import Form, db, permission

blueprint = Blueprint("organisations", __name__, url_prefix="/organisations")


class OrganisationForm(Form):
    """The form of a new organisation."""

    name = StringField("Name", [InputRequired("Enter a name."), Length(max=100)])
    submit = SubmitField("Add organisation")

    def validate_name(self, field: Any) -> None:
        """Refuse a name that is taken."""
        taken = select(Organisation.id).where(Organisation.name == field.data)
        if db.session.scalar(taken) is not None:
            raise ValidationError("There is already an organisation with this name.")


class MemberForm(Form):
    """The form that makes a user a member."""

    email = EmailField(
        "Email address", [InputRequired("Enter an email address."), Length(max=254)]
    )
    submit = SubmitField("Add member")

    def validate_email(self, field: Any) -> None:
        """Refuse an address that belongs to nobody."""
        if self.user() is None:
            raise ValidationError("No user has this address. Invite them first.")

    def user(self) -> User | None:
        """Return the user with the entered address."""
        email = (self.email.data or "").strip().lower()
        found = select(User).where(func.lower(User.email) == email)
        return db.session.scalars(found).one_or_none()


@blueprint.route("/", methods=["GET", "POST"])
@permission("organisations:write")
def index() -> ResponseReturnValue:
    """List the organisations, and add one once it is valid."""
    form = OrganisationForm()
    if form.validate_on_submit():
        organisation = Organisation(name=form.name.data)
        db.session.add(organisation)
        db.session.commit()
        flash(f"{organisation.name} was added.", "success")
        return redirect(url_for(".show", organisation_id=organisation.id))
    found = select(Organisation).order_by(Organisation.name)
    organisations = db.session.scalars(found).all()
    return render_template("organisations.html", form=form, organisations=organisations)


@blueprint.route("/<int:organisation_id>", methods=["GET", "POST"])
@permission("organisations:write")
def show(organisation_id: int) -> ResponseReturnValue:
    """Show the members of an organisation, and add one once the form is valid."""
    organisation = db.get_or_404(Organisation, organisation_id)
    form = MemberForm()
    if form.validate_on_submit() and (user := form.user()):
        user.organisation = organisation
        db.session.commit()
        flash(f"{user.email} was added.", "success")
        return redirect(url_for(".show", organisation_id=organisation.id))
    return render_template("organisation.html", form=form, organisation=organisation)
