"""Flask and nothing else: `gunicorn bare_app:app`. Nobody can sign in."""

from typing import Any

from flask import Flask, render_template
from jinja2 import DictLoader
from shared import JINJA_PAGES, PLACES, REPORT, ROLES

app = Flask(__name__)
app.jinja_loader = DictLoader(JINJA_PAGES)


@app.get("/benchmark/json")
def anonymous_json() -> dict[str, Any]:
    return REPORT


@app.get("/benchmark/me")
def me() -> dict[str, Any]:
    return REPORT | {"email": "reader@example.org", "roles": sorted(ROLES)}


@app.get("/")
def page() -> str:
    return render_template("page.html", title="Home", name="Benchmark", places=PLACES)
