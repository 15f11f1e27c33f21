"""What operators run and read: health, status, metrics, backups, the worker."""

from flask import Flask


def init_app(app: Flask) -> None:
    """Add the health checks and the commands."""
    # As in `bulwark.init_app`: imported after the settings are accepted.
    from bulwark.ops import (  # noqa: PLC0415
        backups,
        exporter,
        health,
        keys,
        prepare,
        worker,
    )

    health.init_app(app)
    exporter.init_app(app)
    prepare.init_app(app)
    backups.init_app(app)
    keys.init_app(app)
    worker.init_app(app)
