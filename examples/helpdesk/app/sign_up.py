"""Who may sign up, and what they enter."""

from wtforms import StringField
from wtforms.validators import DataRequired, Length

from bulwark import ProfileForm, SignUp, Terms


class Profile(ProfileForm):
    """The fields of a new account, which users can change later."""

    display_name = StringField(
        "Your name",
        description="It is shown beside your tickets and comments.",
        validators=[DataRequired("Enter your name."), Length(max=80)],
        render_kw={"autocomplete": "name"},
    )


SIGN_UP: SignUp = SignUp(
    mode="invitation",
    invitation_hours=72,
    form=Profile,
    terms=Terms(version="2026-11", page="app.terms"),
    role="customer",
)
