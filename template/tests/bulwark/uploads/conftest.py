"""Fixtures of the tests of uploads."""

from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from werkzeug.datastructures import FileStorage, MultiDict
from werkzeug.test import TestResponse, encode_multipart

import bulwark
from app.models import User
from bulwark.audit import trail
from bulwark.database import db
from bulwark.identity.sign_up_options import SignUp
from bulwark.jobs import queue
from bulwark.uploads import cleanup
from bulwark.uploads.storage import LocalFolder
from bulwark.web.rate_limits import limiter
from tests.bulwark.uploads.team import Base, Paper, blueprint
from tests.conftest import Visitor, add_person
from tests.sign_up import choices_of


@pytest.fixture(scope="module")
def team_app(
    whole_app: Flask, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Flask]:
    """A service with the views of `team`, with a database of its own on SQLite."""
    url = whole_app.config["SQLALCHEMY_DATABASE_URI"]
    queue.storage.close()
    templates = tmp_path_factory.mktemp("templates")
    (templates / "navigation.html").touch()
    app = Flask("app", template_folder=str(templates))
    app.register_blueprint(blueprint)
    with pytest.MonkeyPatch.context() as patch:
        if url.get_backend_name() == "sqlite":
            folder = tmp_path_factory.mktemp("team")
            patch.setenv("APP_DATABASE_URL", f"sqlite:///{folder}/service.db")
        patch.setenv("APP_UPLOADS_FOLDER", str(tmp_path_factory.mktemp("papers")))
        sign_up = SignUp(form=choices_of(whole_app).form)
        bulwark.init_app(app, user_model=User, sign_up=sign_up)
    with app.app_context():
        db.create_all()
        queue.create_tables()
        Base.metadata.create_all(db.engine)
    yield app
    with app.app_context():
        Base.metadata.drop_all(db.engine)
        db.session.remove()
        db.engine.dispose()
    queue.storage.close()
    queue.init_app(whole_app, whole_app.extensions["bulwark"])


@dataclass
class Owner:
    """A user who is signed in, and sends files."""

    visitor: Visitor

    def send(self, *files: tuple[str, bytes], path: str = "/papers/") -> TestResponse:
        headers = {
            "X-CSRFToken": self.visitor.csrf_token("/change"),
            "Referer": "https://localhost/",
            "Accept": "application/json",
        }
        boundary, body = encode_multipart(
            MultiDict(
                ("paper", FileStorage(BytesIO(content), name))
                for name, content in files
            )
        )
        kind = f"multipart/form-data; boundary={boundary}"
        return self.visitor.client.post(
            path, data=body, headers=headers, content_type=kind
        )

    def keep(self, name: str, content: bytes) -> int:
        """Send a file that is accepted; return the number of its row."""
        response = self.send((name, content))
        assert response.status_code == 200, response.text
        return int(response.get_json()[0]["id"])

    def is_refused(self, name: str, content: bytes) -> str:
        """Send a file that is not accepted; return the reason."""
        response = self.send((name, content))
        assert response.status_code in (400, 413, 415), response.text
        return str(response.get_json()["hint"])

    def get(self, paper: int, **options: Any) -> TestResponse:
        return self.visitor.get(f"/papers/{paper}", buffered=True, **options)


@pytest.fixture
def papers(team_app: Flask) -> Iterator[Path]:
    """The folder of the service's files, empty before and after a test."""
    folder = Path(team_app.config["UPLOADS_FOLDER"])
    yield folder
    limiter.storage.reset()
    with team_app.app_context():
        for file in (storage := LocalFolder(folder)).files():
            storage.delete(file.name)
        with trail.unlocked():
            for table in reversed(db.metadata.sorted_tables):
                if table.name not in ("roles", "audit_permits"):
                    db.session.execute(table.delete())
        db.session.query(Paper).delete()
        db.session.commit()


@pytest.fixture
def owner(team_app: Flask, papers: Path, mailbox: Path) -> Owner:
    visitor = Visitor(team_app, mailbox)
    visitor.sign_in(add_person(team_app, "zoe@example.org"))
    return Owner(visitor)


@pytest.fixture
def stranger(team_app: Flask, papers: Path, mailbox: Path) -> Owner:
    visitor = Visitor(team_app, mailbox)
    visitor.sign_in(add_person(team_app, "eve@example.org"))
    return Owner(visitor)


@pytest.fixture(autouse=True)
def models_of_the_team(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the clean-up know the model, which is not one of the service's."""
    monkeypatch.setattr(cleanup, "models", lambda: [Paper])


def names_in(folder: Path) -> list[str]:
    """Return the names of all files in a folder and its subfolders."""
    return sorted(path.name for path in folder.rglob("*") if path.is_file())
