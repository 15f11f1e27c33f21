"""Pages that anyone may read."""

from flask import Blueprint, render_template
from flask.typing import ResponseReturnValue

from bulwark import embeds, public

blueprint = Blueprint("app", __name__)


@blueprint.get("/")
@public
def home() -> ResponseReturnValue:
    """Show the home page."""
    return render_template("home.html")


@blueprint.get("/terms")
@public
def terms() -> ResponseReturnValue:
    """Show the terms of use."""
    return render_template("terms.html")


@blueprint.get("/tour")
@public
@embeds("https://www.youtube-nocookie.com")
def tour() -> ResponseReturnValue:
    """Show a video about the help desk."""
    return render_template("tour.html")
