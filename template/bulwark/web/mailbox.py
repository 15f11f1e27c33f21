"""/dev/mailbox: the emails that development would have sent."""

from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path

from flask import Blueprint, Flask, abort, render_template
from flask.typing import ResponseReturnValue
from sqlalchemy import func, select

from bulwark.database import db
from bulwark.mail.mailbox import folder
from bulwark.mail.outbox import OutgoingMail
from bulwark.settings import Config
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
    """Show one email as text, with its links."""
    path = folder() / f"{name}.eml"
    if path.parent != folder() or not path.is_file():
        abort(404)
    email = _read(path)
    text = email.get_body(("plain",))
    return render_template(
        "bulwark/message.html", message=email, text=text.get_content() if text else ""
    )


def _read(path: Path) -> EmailMessage:
    return message_from_bytes(path.read_bytes(), policy=default)
