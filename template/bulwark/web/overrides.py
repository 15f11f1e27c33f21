"""Templates in `app/templates/` that override one of the base, or of Flask-Security.

The service does not start if one overrides nothing. Nobody would see that page: the
template was renamed by an update, or its name is misspelled.
"""

import difflib
from collections.abc import Iterator

from flask import Flask

FOLDERS = ("bulwark/", "security/")


class UnknownTemplateError(Exception):
    """An override has the name of a template that does not exist."""


def init_app(app: Flask) -> None:
    """Check the overrides, once all blueprints are registered."""
    if problems := list(_unknown(app)):
        raise UnknownTemplateError(
            "the service did not start:\n" + "\n".join(f"- {p}" for p in problems)
        )


def _unknown(app: Flask) -> Iterator[str]:
    own = app.jinja_loader.list_templates() if app.jinja_loader else []
    overrides = [name for name in own if name.startswith(FOLDERS)]
    known = set(_overridable(app)) if overrides else set()
    for name in sorted(set(overrides) - known):
        near = difflib.get_close_matches(name, known, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        yield (
            f"app/templates/{name} overrides a template that does not exist{hint}, so"
            " no page shows it: bin/codemod renames it if an update renamed the"
            " template; else delete it, or move it out of bulwark/ and security/ if"
            " only your own templates use it"
        )


def _overridable(app: Flask) -> Iterator[str]:
    """Yield the templates of the base and of Flask-Security."""
    for name in ("bulwark", "security"):
        loader = app.blueprints[name].jinja_loader
        if loader:
            yield from loader.list_templates()
