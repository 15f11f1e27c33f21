"""PostgreSQL's programs: which ones fit, and what they may see."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from bulwark import settings
from bulwark.database.engine import database_url
from tests.bulwark.ops.backups.support import (
    Service,
    on_postgresql,
)

pytestmark = on_postgresql


@pytest.fixture
def instead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Put a shell script in front of a program; `real` runs that."""
    folder, path = tmp_path / "bin", os.environ["PATH"]
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{path}")

    def instead(program: str, script: str) -> None:
        real = f'real() {{ {shutil.which(program, path=path)} "$@"; }}'
        (folder / program).write_text(f"#!/bin/sh\n{real}\n{script}\n")
        (folder / program).chmod(0o755)

    return instead


def test_a_restore_that_fails_midway_leaves_the_data_as_it_was(
    service: Service, instead: Callable[..., None]
):
    file = service.backup()
    roles = service.execute("SELECT * FROM roles")
    service.execute("CREATE TABLE later (number INTEGER)")
    for ending in ("head -n 90; exit 1", "sed 's/^ALTER TABLE/ALTAR TABLE/'"):
        instead("pg_restore", f'real "$@" | {ending}')
        output = service.refuses("restore", file, "--replace")
        assert "The data is unchanged" in output
        assert "later" in service.tables()
        assert service.execute("SELECT * FROM roles") == roles


def test_programs_newer_than_the_server_do(
    service: Service, instead: Callable[..., None]
):
    file = service.backup()
    # What pg_restore emits since version 17, and older servers reject.
    instead("pg_restore", 'echo "SET transaction_timeout = 0;"; real "$@"')
    service.restore(file, "--replace")


def test_programs_that_are_missing_or_too_old_are_named(
    service: Service, instead: Callable[..., None], monkeypatch: pytest.MonkeyPatch
):
    file = service.backup()
    instead("pg_dump", "exit 1")
    assert "It must not be older than the server" in service.refuses(
        "backup", service.folder
    )
    monkeypatch.setenv("PATH", "/nowhere")
    assert "pg_dump is not installed" in service.refuses("backup", service.folder)
    assert "psql is not installed" in service.refuses("restore", file, "--replace")
    assert service.files() == [file.name]


def test_no_command_line_holds_the_password(
    service: Service, instead: Callable[..., None], tmp_path: Path
):
    with service.app.app_context():
        url = database_url(settings.current())
    url = url.set(password=url.password or "canary")
    service.set(database_url=url.render_as_string(hide_password=False))
    for program in ("pg_dump", "pg_restore", "psql"):
        line = f'echo "{program} $@" >> {tmp_path}/lines'
        given = f'echo "$PGPASSWORD" >> {tmp_path}/{program}'
        instead(program, f'{line}; {given}; real "$@"')
    service.restore(service.backup(), "--replace")
    lines = (tmp_path / "lines").read_text()
    assert all(program in lines for program in ("pg_dump", "pg_restore", "psql"))
    assert str(url.password) not in lines
    for program in ("pg_dump", "psql"):
        assert (tmp_path / program).read_text() == f"{url.password}\n"
