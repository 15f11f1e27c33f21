"""Your pages. Each route declares who may call it: @public, @signed_in, @permission."""

from flask import Blueprint, render_template
from flask.typing import ResponseReturnValue

from bulwark import public

blueprint = Blueprint("app", __name__)


@blueprint.get("/")
@public
def home() -> ResponseReturnValue:
    """Show the home page."""
    return render_template("home.html")
