"""The templates and static files of the base."""

from pathlib import Path

from flask import Blueprint, Flask

from bulwark import settings
from bulwark.web import access

pages = Blueprint(
    "bulwark",
    __name__,
    root_path=str(Path(__file__).parents[1]),
    template_folder="templates",
    static_folder="static",
    static_url_path="/static/bulwark",
)


def init_app(app: Flask) -> None:
    """Serve the files, and give the settings to all templates as `service`."""
    access.declare(app, access.PUBLIC, ["bulwark.static"])
    app.register_blueprint(pages)

    @app.context_processor
    def _service() -> dict[str, object]:
        return {"service": settings.current()}
