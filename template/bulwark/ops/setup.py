"""Sets up the health checks, reports of browsers and the commands of operators."""

from flask import Flask

from bulwark.ops import (
    backups,
    browser_reports,
    development,
    exporter,
    health,
    keys,
    new,
    prepare,
    worker,
)


def init_app(app: Flask) -> None:
    """Add the routes and the commands."""
    health.init_app(app)
    browser_reports.init_app(app)
    exporter.init_app(app)
    prepare.init_app(app)
    backups.init_app(app)
    keys.init_app(app)
    worker.init_app(app)
    new.init_app(app)
    development.init_app(app)
