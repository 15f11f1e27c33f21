"""The access matrix: who may call what, in two files that a reviewer reads as a diff.

`flask access` prints it, `flask access --write` writes `bulwark/access.txt`, for the
routes of the base, and `app/access.txt`, for yours. A test compares them with the app.
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import click
from flask import Flask, current_app
from flask.cli import with_appcontext

from bulwark import access
from bulwark.identity.models import ADMINISTRATOR

VISITOR, SIGNED_IN = "visitor", "signed in"
# Flask adds these to each route; they do what GET does, or less.
IMPLIED = {"HEAD", "OPTIONS"}
CONVERTER = re.compile(r"<[^<>]*:")
OF_THE_BASE = ("bulwark", "flask_security")
HEAD = """\
# Who may call what of {whose}. Made by `bin/flask access --write`; don't edit it.
# A test calls every route as everybody, and compares. Behind a route stands
#   the permission that it asks for, if it asks for one;
#   recent, if one has to show again after 15 minutes that it is still oneself;
#   setup, if it is open before one has set up a second factor that one must have, as
#   every administrator must. All else that is not for visitors waits until then.
"""


class Route(NamedTuple):
    """A method of a route."""

    method: str
    rule: str
    endpoint: str


def init_app(app: Flask) -> None:
    """Add the command."""
    app.cli.add_command(write)


def routes(app: Flask) -> Iterator[Route]:
    """Yield every method of every route, in order."""
    for rule in sorted(app.url_map.iter_rules(), key=lambda rule: rule.rule):
        for method in sorted((rule.methods or set()) - IMPLIED):
            yield Route(method, rule.rule, rule.endpoint)


def allows(app: Flask, endpoint: str, who: str) -> bool:
    """Tell whether a visitor, anybody signed in, or a role may call an endpoint."""
    wanted = access.of(app, endpoint)
    if who == VISITOR or wanted == access.PUBLIC:
        return wanted == access.PUBLIC
    if wanted == access.SIGNED_IN or who == ADMINISTRATOR:
        return True
    return wanted in app.extensions["roles"].get(who, ())


def files(app: Flask) -> dict[Path, str]:
    """Return the two files as they should be."""
    base: list[Route] = []
    own: list[Route] = []
    for route in routes(app):
        if not route.endpoint.startswith("development."):
            (base if _is_of_the_base(app, route.endpoint) else own).append(route)
    roles = app.extensions["roles"]
    return {
        Path(__file__).parent / "access.txt": _text(
            app, "the base", base, [ADMINISTRATOR]
        ),
        Path(app.root_path) / "access.txt": _text(app, "this service", own, roles),
    }


@click.command("access")
@click.option("--write", "to_files", is_flag=True, help="Write it into the two files.")
@with_appcontext
def write(to_files: bool) -> None:
    """Show who may call which route."""
    for path, text in files(current_app).items():
        if to_files:
            path.write_text(text, encoding="utf-8")
        else:
            click.echo(text)


def _text(app: Flask, whose: str, routes: Iterable[Route], roles: Iterable[str]) -> str:
    """Return one file, routes last in a line: a long one moves no other."""
    columns = [VISITOR, SIGNED_IN, *roles]
    text = HEAD.format(whose=whose) + "  ".join(columns) + "\n"
    for method, rule, endpoint in routes:
        cells = [
            f"{'yes' if allows(app, endpoint, who) else '-':<{len(who)}}"
            for who in columns
        ]
        shown = CONVERTER.sub("<", rule)
        line = [*cells, f"{method:<6}", shown, *_marks(app, endpoint)]
        text += "  ".join(line) + "\n"
    return text


def _is_of_the_base(app: Flask, endpoint: str) -> bool:
    blueprint = app.blueprints.get(endpoint.rpartition(".")[0])
    view = app.view_functions[endpoint]
    module = blueprint.import_name if blueprint else view.__module__
    return module.partition(".")[0] in OF_THE_BASE


def _marks(app: Flask, endpoint: str) -> Iterator[str]:
    wanted, view = access.of(app, endpoint), app.view_functions[endpoint]
    if wanted in app.extensions["permissions"]:
        yield str(wanted)
    if hasattr(view, "recent"):
        yield "recent"
    if hasattr(view, "while_setting_up"):
        yield "setup"
