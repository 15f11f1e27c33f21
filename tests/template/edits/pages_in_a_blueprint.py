"""The team has pages with news."""

from pathlib import Path

from tests.template.edits import append, replace, write

OWNER = "team"
VIEWS = '''\
"""News for everybody."""

from flask import Blueprint, render_template
from flask.typing import ResponseReturnValue

from bulwark import public

blueprint = Blueprint("news", __name__)


@blueprint.get("/news")
@public
def news() -> ResponseReturnValue:
    """Show what is new."""
    return render_template("news.html")
'''
PAGE = """\
{% extends "bulwark/layout.html" %}
{% block title %}News{% endblock %}
"""
LINK = """<li><a href="{{ url_for('news.news') }}">News</a></li>\n"""
USER = "from app.models import User\n"
INIT = "    bulwark.init_app(\n"


def edit(service: Path) -> None:
    write(service / "app/news.py", VIEWS)
    write(service / "app/templates/news.html", PAGE)
    append(service / "app/templates/navigation.html", LINK)
    app = service / "app/__init__.py"
    replace(app, USER, f"{USER}from app.news import blueprint as news\n")
    replace(app, INIT, f"    app.register_blueprint(news)\n{INIT}")
