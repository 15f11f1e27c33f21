"""Accounts: sign-up, sign-in, passwords, second factors, sessions, roles and tokens.

Flask-Security-Too does what it can; `security` adapts it. This room uses `web` and the
rooms below. The pages for users who are signed in are in `account`, those for
administrators in `admin`.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from flask import Flask

from bulwark.settings import Config

if TYPE_CHECKING:
    from bulwark.identity.models import BaseUser


def init_app(
    app: Flask,
    config: Config,
    user_model: "type[BaseUser]",
    roles: Mapping[str, Sequence[str]],
) -> None:
    """Serve the account pages, and reject unsafe requests without a CSRF token."""
    # As in `bulwark.init_app`: imported after the settings are accepted.
    from bulwark.identity import setup  # noqa: PLC0415

    setup.init_app(app, config, user_model, roles)
