"""What a body may be: of bounded size, and if it is JSON strictly so."""

import json
from typing import Any, NoReturn

from flask import Flask, abort, request
from flask.json.provider import DefaultJSONProvider

# Holds every form of the base; a view that takes files sets its own limit on `request`.
MAX_BODY = 1024 * 1024


class StrictJSON(DefaultJSONProvider):
    """Refuses what the standard does not know (RFC 8259) and what nests endlessly."""

    def loads(self, s: str | bytes, **kwargs: Any) -> Any:
        """Read JSON; anything else is a `ValueError`, which Flask answers with 400."""
        try:
            return json.loads(s, parse_constant=_refuse, **kwargs)
        except RecursionError as error:
            raise ValueError("nested too deeply") from error


def init_app(app: Flask) -> None:
    """Bound the body, read JSON strictly, hold the forms of accounts to objects."""
    if app.config["MAX_CONTENT_LENGTH"] is None:
        app.config["MAX_CONTENT_LENGTH"] = MAX_BODY
    app.json_provider_class = StrictJSON
    app.json = StrictJSON(app)
    app.before_request(_refuse_lists_for_forms)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _refuse_lists_for_forms() -> None:
    """Flask-Security reads a body's fields without asking whether it has any."""
    if (
        request.blueprint in ("security", "sign_up", "tokens", "admin")
        and request.is_json
        and not isinstance(request.get_json(), dict)
    ):
        abort(400, "Send a JSON object.")
