"""The base of this service. Extend it from `app/`: updates replace this folder."""

from collections.abc import Mapping, Sequence
from typing import Any

from flask import Flask

from bulwark import account, admin, audit, database, identity, jobs, mail
from bulwark.identity.models import BaseUser
from bulwark.observability import logging, metrics, request_log
from bulwark.ops import backups, exporter, health, prepare
from bulwark.settings import init_app as load_settings
from bulwark.web import (
    access,
    access_matrix,
    data_errors,
    errors,
    faults,
    headers,
    input_validation,
    lengths,
    pages,
    proxy,
    rate_limits,
    signatures,
    static_files,
)

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
    config, own = load_settings(app, settings)
    logging.init_app(config, own)
    faults.init_app(app)
    request_log.init_app(app)
    proxy.init_app(app, config)
    headers.init_app(app, config, csp_sources or {})
    errors.init_app(app)
    input_validation.init_app(app)
    lengths.init_app(app)
    data_errors.init_app(app)
    database.init_app(app, config)
    metrics.init_app(app, config, audit.events.CATALOGUE)
    jobs.init_app(app, config)
    mail.init_app(config)
    pages.init_app(app, config)
    static_files.init_app(app)
    rate_limits.init_app(app, config)
    identity.init_app(app, config, user_model, roles or {})
    account.init_app(app)
    admin.init_app(app)
    audit.init_app(app)
    health.init_app(app)
    exporter.init_app(app)
    prepare.init_app(app)
    backups.init_app(app)
    access_matrix.init_app(app)
    access.init_app(app, permissions or {}, roles or {})
