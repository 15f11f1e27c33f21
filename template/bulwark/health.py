"""Whether the process lives and whether it can serve: /healthz and /readyz."""

from flask import Blueprint, Flask, jsonify
from flask.typing import ResponseReturnValue
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from bulwark.access import public
from bulwark.database import db
from bulwark.logging import log

blueprint = Blueprint("health", __name__)


def init_app(app: Flask) -> None:
    """Serve both addresses to everybody; they tell no details."""
    app.register_blueprint(blueprint)


@blueprint.get("/healthz")
@public
def live() -> ResponseReturnValue:
    """Answer as long as the process can."""
    return jsonify(status="ok")


@blueprint.get("/readyz")
@public
def ready() -> ResponseReturnValue:
    """Answer 503 while the database does not."""
    try:
        db.session.execute(text("SELECT 1"))
    except SQLAlchemyError:
        log.exception("database_unreachable")
        return jsonify(status="unavailable"), 503, {"Retry-After": "5"}
    return jsonify(status="ok")
