"""The base of this service. Extend it from `app/`: updates replace this folder."""

from collections.abc import Mapping, Sequence
from typing import Any

from flask import Flask

from bulwark import (
    access,
    account,
    admin,
    assets,
    audit_commands,
    backups,
    commands,
    config,
    data_errors,
    database,
    errors,
    events,
    exporter,
    faults,
    headers,
    health,
    identity,
    inputs,
    jobs,
    lengths,
    limits,
    logging,
    mail,
    matrix,
    metrics,
    pages,
    proxy,
    request_log,
    signatures,
)
from bulwark.identity.models import BaseUser

__all__ = ["init_app"]


def init_app(
    app: Flask,
    *,
    user_model: type[BaseUser],
    settings: type[Any] | None = None,
    permissions: Mapping[str, str] | None = None,
    roles: Mapping[str, Sequence[str]] | None = None,
    csp_sources: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Set up the base for an app whose blueprints are registered.

    Args:
        app: the app; its package contains `templates/` and `migrations/`.
        user_model: your subclass of `BaseUser`, with your columns.
        settings: a dataclass of your settings, read into `app.config`.
        permissions: your permissions, each with a description.
        roles: your roles with their permissions; `flask prepare` creates missing ones.
        csp_sources: other hosts that your pages load from, by CSP directive.

    Raises:
        config.ConfigurationError: a setting is missing, weak or unknown.
        access.UndeclaredAccessError: a route does not declare who may call it.
    """
    signatures.init()
    settings_of_base, own = config.init_app(app, settings)
    logging.init_app(settings_of_base, own)
    faults.init_app(app)
    request_log.init_app(app)
    proxy.init_app(app, settings_of_base)
    headers.init_app(app, settings_of_base, csp_sources or {})
    errors.init_app(app)
    inputs.init_app(app)
    lengths.init_app(app)
    data_errors.init_app(app)
    database.init_app(app, settings_of_base)
    metrics.init_app(app, settings_of_base, events.CATALOGUE)
    jobs.init_app(app, settings_of_base)
    mail.init_app(settings_of_base)
    pages.init_app(app, settings_of_base)
    assets.init_app(app)
    limits.init_app(app, settings_of_base)
    identity.init_app(app, settings_of_base, user_model, roles or {})
    account.init_app(app)
    admin.init_app(app)
    audit_commands.init_app(app)
    health.init_app(app)
    exporter.init_app(app)
    commands.init_app(app)
    backups.init_app(app)
    matrix.init_app(app)
    access.init_app(app, permissions or {}, roles or {})
