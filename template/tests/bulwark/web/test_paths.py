"""Where the service lies: any characters in the path, and its data stays inside."""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

# What lies beside the code: packages, data, settings of this machine.
BESIDE = shutil.ignore_patterns(".*", "instance", "node_modules")
# Of a process that starts whatever your own settings want.
START = """
import sys
import pytest
from tests.own_settings import leave_out_own_settings
leave_out_own_settings(pytest.MonkeyPatch())
"""
COMMANDS = f"""{START}
from flask.cli import cli
from wsgi import app
for command in ("prepare", "db check", "backup instance/backups"):
    cli(["--app", "wsgi", *command.split()], standalone_mode=False)
"""
MAIL = f"""{COMMANDS}
from bulwark import mail
from bulwark.database import db
from bulwark.mail import outbox
with app.app_context():
    mail.send("Hello", "zoe@example.org", "Text.")
    db.session.commit()
    outbox.deliver_due()
print(app.test_client().get("/dev/mailbox", base_url="https://localhost").text)
"""


@pytest.fixture
def place(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A copy of the service in a folder of that name."""
    folder: Path = tmp_path / request.param / "service"
    shutil.copytree(ROOT, folder, symlinks=True, ignore=BESIDE)
    return folder


def run(folder: Path, *command: str) -> str:
    """Run a command as bin/flask does, with an umask that hides nothing."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith("APP_")}
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=environ | {"APP_ENV": "development", "FLASK_SKIP_DOTENV": "1"},
        capture_output=True,
        text=True,
        umask=0o022,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("place", ["100% what?#1 %(here)s %41 ä@b;c"], indirect=True)
def test_set_up_works_and_the_data_stays_inside(place: Path):
    run(place, "bin/secrets")
    assert "zoe@example.org" in run(place, "-c", MAIL)
    for name in ("development.db", "development.jobs.db"):
        file = place / "instance" / name
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list((place / "instance/mailbox").glob("*.eml"))
    assert list((place / "instance/backups").glob("*.backup"))
    # Nothing lies beside the service or above it.
    above = [path for path in place.parent.parent.rglob("*") if path.is_file()]
    assert [path for path in above if not path.is_relative_to(place)] == []
