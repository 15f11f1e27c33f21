"""The service of a team, with views that tests bring along."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from flask import Blueprint, Flask
from sqlalchemy import Table

import bulwark
from app.models import User
from bulwark.database import db
from bulwark.identity.sign_up_options import SignUp
from bulwark.jobs import queue
from tests.sign_up import choices_of


@contextmanager
def running(
    whole_app: Flask,
    folder: Path,
    blueprints: Sequence[Blueprint],
    *tables: Table,
    **options: Any,
) -> Iterator[Flask]:
    """Run an app with other views, on a database of its own if that is SQLite."""
    url = whole_app.config["SQLALCHEMY_DATABASE_URI"]
    queue.storage.close()
    # The service's own navigation may link to views that are not in this app.
    (folder / "templates").mkdir()
    (folder / "templates/navigation.html").touch()
    app = Flask("app", template_folder=str(folder / "templates"))
    for blueprint in blueprints:
        app.register_blueprint(blueprint)
    with pytest.MonkeyPatch.context() as patch:
        if url.get_backend_name() == "sqlite":
            patch.setenv("APP_DATABASE_URL", f"sqlite:///{folder}/service.db")
        options.setdefault("sign_up", SignUp(form=choices_of(whole_app).form))
        bulwark.init_app(app, user_model=User, **options)
    app.config["PROPAGATE_EXCEPTIONS"] = False
    with app.app_context():
        db.create_all()
        for table in tables:
            table.create(db.engine)
        queue.create_tables()
    yield app
    with app.app_context():
        for table in tables:
            table.drop(db.engine)
        db.session.remove()
        db.engine.dispose()
    queue.storage.close()
    queue.init_app(whole_app, whole_app.extensions["bulwark"])
