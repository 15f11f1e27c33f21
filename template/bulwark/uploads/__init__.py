"""Files that users upload: received, checked, stored under random names, and sent back.

class Receipt(Upload, Model):
    __tablename__ = "receipts"
    accepts = (".pdf", ".png")
    ...

@blueprint.post("/receipts")
@signed_in
@body_limit("12 MB")
def add():
    db.session.add_all(receive_uploads("receipt", Receipt))
    db.session.commit()

A stored file never changes. A row of the team's own model refers to it by its random
name. A file without a row, such as one whose row was deleted, is deleted at night once
it is a day old (`cleanup`).
"""

from pathlib import Path

from flask import Flask

from bulwark.settings import Config, ConfigurationError
from bulwark.settings.fields import Problem
from bulwark.uploads import cleanup, copying  # noqa: F401  it declares its job
from bulwark.uploads.storage import LocalFolder, Storage


def init_app(app: Flask, config: Config) -> None:
    """Choose the storage, and add a command."""
    app.extensions["uploads"] = _storage(config)
    app.cli.add_command(copying.copy_uploads)


def _storage(config: Config) -> Storage:
    """Return the storage that the settings choose."""
    if not config.uploads_url:
        return LocalFolder(Path(config.uploads_folder))
    try:
        from bulwark.uploads import bucket  # noqa: PLC0415  boto3 is the team's
    except ModuleNotFoundError as error:
        problem = Problem(
            f"APP_UPLOADS_URL is set, but the package {error.name} is not installed",
            "it connects to the bucket",
            'add "boto3>=1.40" to dependencies in pyproject.toml, then run bin/setup',
        )
        raise ConfigurationError(config.environment, [problem]) from None
    return bucket.Bucket(config.uploads_url)
