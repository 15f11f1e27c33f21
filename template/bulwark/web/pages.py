"""The templates and static files of the base, and the mailbox in development."""

from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path

from flask import Blueprint, Flask, abort, render_template
from flask.typing import ResponseReturnValue
from sqlalchemy import func, select

from bulwark import settings
from bulwark.database import db
from bulwark.mail.outbox import OutgoingMail
from bulwark.settings import urls
from bulwark.web import access
from bulwark.web.access import public

pages = Blueprint(
    "bulwark",
    __name__,
    root_path=str(Path(__file__).parents[1]),
    template_folder="templates",
    static_folder="static",
    static_url_path="/static/bulwark",
)
development = Blueprint("development", __name__, url_prefix="/dev")


def init_app(app: Flask, config: settings.Config) -> None:
    """Serve the files, and the mailbox in development only."""
    access.declare(app, access.PUBLIC, ["bulwark.static"])
    app.register_blueprint(pages)
    if config.environment == "development":
        app.register_blueprint(development)

    @app.context_processor
    def _service() -> dict[str, object]:
        return {"service": settings.current()}


@development.get("/mailbox")
@public
def mailbox() -> ResponseReturnValue:
    """List the emails that would have been sent, newest first."""
    letters = [(path.stem, _read(path)) for path in sorted(_folder().glob("*.eml"))]
    waiting = db.session.scalar(select(func.count()).select_from(OutgoingMail))
    return render_template(
        "bulwark/mailbox.html", letters=reversed(letters), waiting=waiting
    )


@development.get("/mailbox/<name>")
@public
def letter(name: str) -> ResponseReturnValue:
    """Show one email as text, with its links."""
    path = _folder() / f"{name}.eml"
    if path.parent != _folder() or not path.is_file():
        abort(404)
    message = _read(path)
    text = message.get_body(("plain",))
    return render_template(
        "bulwark/message.html", message=message, text=text.get_content() if text else ""
    )


def _folder() -> Path:
    return Path(urls.path_of(settings.current().mail_url))


def _read(path: Path) -> EmailMessage:
    return message_from_bytes(path.read_bytes(), policy=default)
