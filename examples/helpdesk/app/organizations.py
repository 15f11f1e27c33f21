"""Organizations and their members, for agents."""

from typing import Any

from flask import Blueprint, flash, redirect, render_template, url_for
from flask.typing import ResponseReturnValue
from sqlalchemy import func, select
from wtforms import EmailField, StringField, SubmitField
from wtforms.validators import InputRequired, Length, ValidationError

from app.models import Organization, User
from bulwark import Form, db, permission

blueprint = Blueprint("organizations", __name__, url_prefix="/organizations")


class OrganizationForm(Form):
    """The form of a new organization."""

    name = StringField("Name", [InputRequired("Enter a name."), Length(max=100)])
    submit = SubmitField("Add organization")

    def validate_name(self, field: Any) -> None:
        """Refuse a name that is taken."""
        taken = select(Organization.id).where(Organization.name == field.data)
        if db.session.scalar(taken) is not None:
            raise ValidationError("There is already an organization with this name.")


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
@permission("organizations:write")
def index() -> ResponseReturnValue:
    """List the organizations, and add one once it is valid."""
    form = OrganizationForm()
    if form.validate_on_submit():
        organization = Organization(name=form.name.data)
        db.session.add(organization)
        db.session.commit()
        flash(f"{organization.name} was added.", "success")
        return redirect(url_for(".show", organization_id=organization.id))
    found = select(Organization).order_by(Organization.name)
    organizations = db.session.scalars(found).all()
    return render_template("organizations.html", form=form, organizations=organizations)


@blueprint.route("/<int:organization_id>", methods=["GET", "POST"])
@permission("organizations:write")
def show(organization_id: int) -> ResponseReturnValue:
    """Show the members of an organization, and add one once the form is valid."""
    organization = db.get_or_404(Organization, organization_id)
    form = MemberForm()
    if form.validate_on_submit() and (user := form.user()):
        user.organization = organization
        db.session.commit()
        flash(f"{user.email} was added.", "success")
        return redirect(url_for(".show", organization_id=organization.id))
    return render_template("organization.html", form=form, organization=organization)
