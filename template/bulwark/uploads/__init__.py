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

from flask import Flask

from bulwark.settings import Config
from bulwark.uploads import cleanup, storage  # noqa: F401  it declares its job


def init_app(app: Flask, config: Config) -> None:
    """Choose the storage."""
    app.extensions["uploads"] = storage.of(config)
