"""What the tests of the base share."""

import io
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import pytest
from alembic.config import Config
from flask import Flask
from sqlalchemy import create_engine, text

from bulwark import settings
from bulwark.audit.catalogue import CATALOGUE
from bulwark.database import db
from bulwark.database.migrations import migrate
from bulwark.observability import logging as bulwark_logging
from bulwark.observability.log_schema import schema
from bulwark.web.access import ADMINISTRATOR
from tests.beginnings import signed_in
from tests.bucket import RCLONE, BucketServer
from tests.conftest import ROOT, Visitor
from tests.sign_up import choices_of

BASE = ROOT / "bulwark/migrations/versions"
LINE = jsonschema.Draft202012Validator(
    schema({name: kind.audited for name, kind in CATALOGUE.items()})
)


class Written(io.StringIO):
    """What production writes."""

    def lines(self) -> list[dict[str, Any]]:
        """Return each line, which fits the schema."""
        found = [json.loads(line) for line in self.getvalue().splitlines()]
        for line in found:
            LINE.validate(line)
        return found


@pytest.fixture
def written(app: Flask, monkeypatch: pytest.MonkeyPatch) -> Iterator[Written]:
    """What is logged, as production logs it."""
    out = Written()
    monkeypatch.setattr(bulwark_logging, "sys", SimpleNamespace(stdout=out, stderr=out))
    bulwark_logging.configure("INFO", readable=False)
    yield out
    monkeypatch.undo()
    bulwark_logging.configure("INFO", readable=True)


@pytest.fixture
def bucket_server(tmp_path: Path) -> Iterator[BucketServer]:
    """A server with a bucket, if the service has what a bucket needs."""
    pytest.importorskip("boto3", reason="needs boto3, an option")
    if not RCLONE:
        pytest.skip("needs rclone")
    server = BucketServer(tmp_path / "bucket")
    yield server
    server.stop()


@pytest.fixture
def ada(visitor: Visitor) -> Visitor:
    """An administrator who is signed in."""
    return signed_in(visitor, "ada@example.org", ADMINISTRATOR)


@pytest.fixture
def public_sign_up(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let anyone sign up, whatever the mode of the service is."""
    choices = replace(choices_of(app), mode="public")
    monkeypatch.setitem(app.extensions, "sign_up", choices)


@pytest.fixture
def app_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the app's folder of migrations, for tests that write into it."""
    folder = tmp_path / "migrations"
    shutil.copytree(ROOT / "app/migrations", folder)

    def use(alembic: Config) -> Config:
        alembic.attributes["folders"] = {"bulwark": str(BASE), "app": str(folder)}
        places = f"{BASE}\n{folder}".replace("%", "%%")
        alembic.set_main_option("version_locations", places)
        return alembic

    callbacks = [*migrate.configure_callbacks, use]
    monkeypatch.setattr(migrate, "configure_callbacks", callbacks)
    return folder


@pytest.fixture
def alembic(
    app: Flask, app_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Config]:
    """What Alembic's commands take, with an empty database of the same kind."""
    with app.app_context():
        url = db.engine.url
        patience: dict[str, object] = {"timeout": 0.3}
        name = str(tmp_path / "empty.db")
        if url.get_backend_name() == "postgresql":
            patience = {"options": "-c lock_timeout=300ms"}
            name = f"{url.database}_migrations"
            with db.engine.connect().execution_options(
                isolation_level="AUTOCOMMIT"
            ) as connection:
                connection.execute(text(f'DROP DATABASE IF EXISTS "{name}"'))
                connection.execute(text(f'CREATE DATABASE "{name}"'))
        engine = create_engine(url.set(database=name), connect_args=patience)
        with monkeypatch.context() as patch:
            patch.setitem(db.engines, None, engine)
            yield migrate.get_config()
            db.session.remove()
        engine.dispose()


STRONG = "kV3r8Q_xTz0nLw6yB-Jf9uHsM1pD4aGc7eRiXoN2tYbWqUhZ"
GOOD = {
    "APP_SECRET_KEY": f"{STRONG}-signs",
    "APP_PASSWORD_PEPPER": f"{STRONG}-hashes",
    "APP_ENCRYPTION_KEYS": f"1:{STRONG[:43]}",
    "APP_ALLOWED_HOSTS": "shop.test",
    "APP_MAIL_URL": "smtp://user:pass@mail.shop.test:587",
    "APP_DATABASE_URL": "sqlite:////tmp/shop.db",
}


@pytest.fixture
def production(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder without files, and an environment that production starts with."""
    for name in [n for n in os.environ if n.startswith(("APP_", "FLASK_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("APP_ENV", "production")
    monkeypatch.setenv("APP_SECRETS_DIR", str(tmp_path / "secrets"))
    for name, value in GOOD.items():
        monkeypatch.setenv(name, value)
    return tmp_path


def problems(root: Path, own: type | None = None) -> str:
    """Load the settings; return what is wrong with them."""
    try:
        settings.load(root, own)
    except settings.ConfigurationError as error:
        return str(error)
    return ""
