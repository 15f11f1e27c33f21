"""The team deleted the example's page for one of its own."""

from pathlib import Path

from tests.template.edits import replace, write

OWNER = "team"
PAGE = """\
{% extends "bulwark/layout.html" %}
{% block content %}
<h1>Start</h1>
{% endblock %}
"""


def edit(service: Path) -> None:
    (service / "app/templates/home.html").unlink()
    write(service / "app/templates/start.html", PAGE)
    replace(service / "app/views.py", '"home.html"', '"start.html"')
