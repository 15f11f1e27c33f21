"""/dev/mailbox: the emails that development would have sent."""

from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path

from flask import Blueprint, Flask, abort, make_response, render_template
from flask.typing import ResponseReturnValue
from sqlalchemy import func, select

from bulwark.database import db
from bulwark.mail.mailbox import folder
from bulwark.mail.outbox import OutgoingMail
from bulwark.settings import Config
from bulwark.web import headers
from bulwark.web.access import public

development = Blueprint("development", __name__, url_prefix="/dev")


def init_app(app: Flask, config: Config) -> None:
    """Serve the mailbox in development only."""
    if config.environment == "development":
        app.register_blueprint(development)


@development.get("/mailbox")
@public
def mailbox() -> ResponseReturnValue:
    """List the emails that would have been sent, newest first."""
    files = sorted(folder().glob("*.eml"), reverse=True)
    messages = [(path.stem, _read(path)) for path in files]
    waiting = db.session.scalar(select(func.count()).select_from(OutgoingMail))
    return render_template("bulwark/mailbox.html", messages=messages, waiting=waiting)


@development.get("/mailbox/<name>", endpoint="letter")
@public
def message(name: str) -> ResponseReturnValue:
    """Show one email: its HTML in a frame, its text and its headers."""
    email = _find(name)
    text, html = email.get_body(("plain",)), email.get_body(("html",))
    page = render_template(
        "bulwark/message.html",
        message=email,
        name=name,
        has_html=html is not None,
        text=text.get_content() if text else "",
    )
    response = make_response(page)
    headers.show_own_frames(response)
    return response


@development.get("/mailbox/<name>/html", endpoint="letter_html")
@public
def preview(name: str) -> ResponseReturnValue:
    """Send the HTML of an email for the frame: it runs no script and loads nothing."""
    html = _find(name).get_body(("html",))
    if html is None:
        abort(404)
    page = html.get_content().replace("<head>", '<head><base target="_blank">', 1)
    response = make_response(page)
    headers.sandbox(response, headers.PREVIEW)
    return response


def _find(name: str) -> EmailMessage:
    path = folder() / f"{name}.eml"
    if path.parent != folder() or not path.is_file():
        abort(404)
    return _read(path)


def _read(path: Path) -> EmailMessage:
    return message_from_bytes(path.read_bytes(), policy=default)
