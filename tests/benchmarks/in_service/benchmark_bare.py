"""Bare Flask apps that return what the service returns, without any of its controls."""

import json
from logging import INFO, StreamHandler, getLogger
from sys import stdout
from typing import Any

from bulwark.audit import events
from bulwark.observability import request_log
from flask import Flask, Response, render_template, request
from jinja2 import DictLoader

plain = getLogger("plain")
plain.addHandler(StreamHandler(stdout))
plain.setLevel(INFO)
plain.propagate = False
# An ordinary page: a layout, links to static files and to other pages, messages.
LAYOUT = """<!doctype html><html lang="en"><head>
<title>{% block title %}{% endblock %} · {{ name }}</title>
{% for file in ("icon.svg", "one.css", "two.css", "three.css") -%}
<link href="{{ url_for('static', filename=file) }}">
{% endfor %}</head><body><nav>
{% for endpoint in ("view", "me", "view") -%}
<a href="{{ url_for(endpoint) }}">{{ endpoint }}</a>
{% endfor %}</nav>
{% for message in get_flashed_messages() %}<p>{{ message }}</p>{% endfor %}
{% block content %}{% endblock %}</body></html>"""
PAGE = """{% extends "layout.html" %}{% block title %}{{ title }}{% endblock %}
{% block content %}<h1>{{ title }}</h1>FILLING{% endblock %}"""
pages = {"layout.html": LAYOUT}


def make(service: Flask, report: dict[str, Any]) -> Flask:
    """Return an app with the same JSON, and pages of the same size."""
    app = Flask("bare")
    app.secret_key = service.secret_key
    app.jinja_loader = DictLoader(pages)

    @app.get("/json")
    def view() -> dict[str, Any]:
        return report

    @app.get("/me")
    def me() -> dict[str, Any]:
        return report | {"email": "reader@example.org", "roles": ["a", "b", "c"]}

    @app.post("/notes")
    def notes() -> dict[str, Any]:
        return report | {"text": request.get_json()["text"]}

    @app.get("/page/<number>")
    def page(number: str) -> str:
        return render_template(number, name=service.name, title="Home")

    return app


def path_for(path: str, answer: bytes) -> str:
    """Return the bare app's path for one of the service, given the service's answer."""
    if path == "/":
        name = f"{len(pages)}"
        filling = "x" * max(0, len(answer) - len(LAYOUT))
        pages[name] = PAGE.replace("FILLING", filling)
        return f"/page/{name}"
    paths = {"/benchmark/me": "/me", "/benchmark/notes": "/notes"}
    return paths.get(path, "/json")


def observed(service: Flask, report: dict[str, Any]) -> dict[str, Flask]:
    """Return bare apps that log: plainly, as the service does, and with an event.

    A plain line is what json and logging cost by themselves.
    """
    apps = {}
    names = ("plain line", "line and metrics", "line, metrics and one event")
    for number, name in enumerate(names):
        app = apps[name] = Flask("bare")
        app.extensions |= service.extensions
        app.add_url_rule("/json", "view", _view(report, emitting=number == 2))
        if number == 0:
            app.after_request(_write_plainly)
        else:
            request_log.init_app(app)
    return apps


def _view(report: dict[str, Any], *, emitting: bool) -> Any:
    def view() -> dict[str, Any]:
        if emitting:
            events.emit("sys_startup", part="web")
        return report

    return view


def _write_plainly(response: Response) -> Response:
    fields = {"request_id": "f" * 32, "method": request.method, "milliseconds": 1.2}
    plain.info(json.dumps(fields | {"status": response.status_code}))
    return response
