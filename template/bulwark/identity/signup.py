"""Sign-up: first the email address, then a password, through the emailed link.

Nothing is stored before the address is confirmed. So no one can prepare an account for
another person's address, and responses never reveal whether an account exists.
"""

from datetime import timedelta

from flask import (
    Blueprint,
    Flask,
    abort,
    flash,
    redirect,
    render_template,
    request,
    url_for,
)
from flask.typing import ResponseReturnValue
from flask_login import current_user
from flask_security import forms as stock
from flask_security import hash_password
from flask_security.utils import base_render_json
from itsdangerous import BadData, URLSafeTimedSerializer
from wtforms import EmailField, SubmitField

from bulwark import mail, settings
from bulwark.audit import events
from bulwark.database import db, utcnow
from bulwark.identity import new_accounts, sign_up_options, terms, users
from bulwark.identity.form_data import submitted
from bulwark.identity.new_accounts import AddressTakenError
from bulwark.web import attempts
from bulwark.web.access import public
from bulwark.web.errors import refusal, wants_json

LINK_HOURS = 24
MAILS_AN_HOUR = 5  # to one address

blueprint = Blueprint("sign_up", __name__)


class SignUpForm(stock.Form):
    """The form that requests a link for an email address."""

    email = EmailField(
        "Email address",
        validators=[
            stock.IsString(),
            stock.email_required,
            stock.EmailValidation(verify=True),
        ],
        render_kw={"autocomplete": "username"},
    )
    submit = SubmitField("Send me a link")


def init_app(app: Flask) -> None:
    """Register the two pages."""
    app.register_blueprint(blueprint)


@blueprint.before_request
def _check_mode() -> ResponseReturnValue | None:
    """Refuse both pages if not everyone may sign up, also with a link of earlier."""
    mode = sign_up_options.current().mode
    if mode == "public":
        return None
    if mode == "closed":
        abort(404)
    if wants_json():
        return refusal(404, "Accounts are by invitation")
    page = render_template("security/by_invitation.html")
    return page, 200 if request.method == "GET" else 404


@blueprint.route("/register", methods=["GET", "POST"])
@public
def register() -> ResponseReturnValue:
    """Ask for an email address, and send it a link."""
    if current_user.is_authenticated:
        return redirect(url_for("account.index"))
    form = SignUpForm(formdata=submitted())
    if form.validate_on_submit():
        _send_link(form.email.data)
        if not wants_json():
            flash(
                f"We sent an email to {form.email.data}. Open the link in it to"
                " continue. If it doesn't arrive, check your spam folder and the"
                " spelling of the address.",
                "success",
            )
    if wants_json():
        return base_render_json(form, include_user=False)
    return render_template("security/register_user.html", form=form)


@blueprint.route("/register/<token>", methods=["GET", "POST"])
@public
def complete(token: str) -> ResponseReturnValue:
    """Create the account with the chosen password."""
    email = _address(token)
    if email is None or users.find(email):
        return _refuse("The link was already used, is expired or incomplete.")
    form = new_accounts.form_for(email, "Create account", submitted())
    if not form.validate_on_submit():
        if wants_json():
            return base_render_json(form, include_user=False)
        return render_template("security/first_password.html", form=form, email=email)
    password = hash_password(form.password.data)
    try:
        user = new_accounts.create(
            email, form, password=password, confirmed_at=utcnow()
        )
    except AddressTakenError:  # Another request was faster with the same link.
        return _refuse("The link was already used.")
    details = new_accounts.details_of(user)
    events.record("user_created", user, actor=user, **details)
    terms.accept(user)
    db.session.commit()
    if wants_json():
        return base_render_json(form, include_user=False)
    flash("Your account was created. You can sign in now.", "success")
    return redirect(url_for("security.login"))


def _refuse(reason: str) -> ResponseReturnValue:
    if wants_json():
        return {"response": {"errors": [reason]}}, 400
    flash(f"{reason} Request a new one.", "error")
    return redirect(url_for("sign_up.register"))


def _send_link(email: str) -> None:
    """Email a link, or a note that the address already has an account."""
    if attempts.count("sign-up", email, timedelta(hours=1)).count > MAILS_AN_HOUR:
        return  # The earlier links still work.
    name = settings.current().name
    # Created in both cases: it takes a tenth of the time, which would be noticeable.
    token = _serializer().dumps(email)
    link = url_for("sign_up.complete", token=token, _external=True)
    if user := users.find(email):
        text = render_template("security/email/welcome_existing.txt", user=user)
        mail.send(f"You have an account at {name}", email, text)
    else:
        text = render_template(
            "security/email/welcome.txt", link=link, hours=LINK_HOURS
        )
        mail.send(f"Your account at {name}", email, text)
    db.session.commit()


def _address(token: str) -> str | None:
    try:
        return str(_serializer().loads(token, max_age=LINK_HOURS * 3600))
    except BadData:
        return None


def _serializer() -> URLSafeTimedSerializer:
    keys = settings.current().signing_keys
    return URLSafeTimedSerializer(keys, salt="bulwark.sign-up")
