"""Sets up the health checks and the commands of operators."""

from flask import Flask

from bulwark.ops import (
    backups,
    development,
    exporter,
    health,
    keys,
    new,
    prepare,
    worker,
)


def init_app(app: Flask) -> None:
    """Add the health checks and the commands."""
    health.init_app(app)
    exporter.init_app(app)
    prepare.init_app(app)
    backups.init_app(app)
    keys.init_app(app)
    worker.init_app(app)
    new.init_app(app)
    development.init_app(app)
