"""Fixtures of the tests of backups."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask

from bulwark.database import db
from tests.bulwark.ops.backups.support import POSTGRESQL, Service


@pytest.fixture
def service(app: Flask, tmp_path: Path) -> Iterator[Service]:
    """The app in a database on disk."""
    with pytest.MonkeyPatch.context() as patch:
        if POSTGRESQL:
            skip_unless_programs_fit(app)
        service = Service(app, tmp_path, patch)
        service.set(slug="bulwark")
        service.lose_all_data()
        service.prepare()
        yield service


def skip_unless_programs_fit(app: Flask) -> None:
    found = re.search(r"\) (\d+)", subprocess.getoutput("pg_dump --version"))
    with app.app_context(), db.engine.connect() as connection:
        server = int((connection.dialect.server_version_info or (0,))[0])
    if not found or int(found[1]) < server:
        pytest.skip(f"needs pg_dump of PostgreSQL {server} or later")
