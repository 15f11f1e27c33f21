"""deploy/systemd/release: no dropped requests, and the way back."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.deployed import HOME, NAME, SETTINGS, Server
from tests.support.installed import Shared, show, state, wait_until_all_run_the_release
from tests.support.load import Load
from tests.support.machine import NEEDS_MACHINE
from tests.support.servers import PATIENCE, eventually

pytestmark = NEEDS_MACHINE


def test_a_release_and_the_way_back_drop_no_request(
    own: Server, tmp_path: Path
) -> None:
    first = own.current
    own.commit({"app/views.py": "# The second.\n"})
    slow = Load(own, 2, ("/test/slow/8",))
    with Load(own, 6) as load, slow:
        load.wait_for(500)
        done = own.release()
        assert done.returncode == 0, done.stderr
        second = own.current
        assert second != first
        wait_until_all_run_the_release(own)
        load.wait_for(500)
        done = own.release("--back")
        assert done.returncode == 0, done.stderr
        load.wait_for(500)
    assert load.dropped == slow.dropped == []
    assert load.answered >= 1500
    assert load.releases == {first, second}
    # Whatever was sent arrived, and did so once.
    kept = own.path(f"/var/lib/{NAME}/kept").read_text().split()
    assert sorted(kept) == sorted(load.posted)
    # The one that was left is gone for good, and no start brings it up.
    assert own.path(f"{HOME}/releases").joinpath(second).exists() is False
    with Server(own.keep(tmp_path / "trixie-again")) as again:
        assert again.ask("/test/release").body == f'{{"release":"{first}"}}\n'
        again.run("systemctl", "is-active", f"{NAME}@worker")
        done = again.release("--back")
        assert done.returncode == 1
        assert f"no release before {first}" in done.stderr


# What the team commits, and the release's message about it.
BROKEN = {
    "is no Python": ({"app/views.py": "def broken(:\n"}, "SyntaxError"),
    "has a migration that fails": (
        {
            "app/migrations/0002_broken.py": """\
from alembic import op

revision, down_revision, branch_labels, depends_on = "0002", "app0001", None, None


def upgrade() -> None:
    op.execute("SELECT * FROM nowhere")
"""
        },
        "no such table: nowhere",
    ),
    "does not start": (
        {"gunicorn.conf.py": 'raise RuntimeError("does not start")\n'},
        "It does not start.",
    ),
    "is never ready": (
        {
            "app/views.py": """
@blueprint.before_app_request
def refuse() -> ResponseReturnValue | None:
    return ("not ready", 503) if request.path == "/readyz" else None
"""
        },
        "/readyz did not return 200 within 3 seconds.",
    ),
    "fails once visitors come": (
        {
            "app/views.py": """
@blueprint.before_app_request
def refuse() -> ResponseReturnValue | None:
    if request.path == "/readyz" and Path("/srv/edge-test/current").samefile("."):
        return "not ready", 503
    return None
"""
        },
        "/readyz no longer returns 200.",
    ),
    "has a location that nginx refuses": (
        {"app/nginx/broken.conf": "locatin / {}\n"},
        'unknown directive "locatin"',
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_release_is_taken_back_that(server: Server, what: str) -> None:
    files, reason = BROKEN[what]
    server.commit(files)
    if what == "is never ready":
        script = server.path(f"{HOME}/current/deploy/systemd/release")
        script.write_text(script.read_text().replace("patience=60", "patience=3"))
    with Load(server, 2) as load:
        load.wait_for(20)
        before = state(server)
        done = server.release()
        assert done.returncode == 1
        assert reason in done.stdout + done.stderr
        assert f"{server.current} is still in use" in done.stderr
        assert state(server) == before
        load.wait_for(100)
    assert load.dropped == []
    assert server.run("systemctl", "--failed", "--no-legend") == ""


def test_settings_that_production_refuses_are_not_switched_to(server: Server) -> None:
    settings = server.path(SETTINGS)
    right = settings.read_text()
    settings.write_text(right.replace("APP_MAIL_URL", "APP_MAIL_URI"))
    before = state(server)
    done = server.release()
    settings.write_text(right)
    assert done.returncode == 1
    assert "did you mean APP_MAIL_URL?" in done.stderr
    assert state(server) == before
    assert server.ask("/readyz").status == 200


def test_of_two_releases_at_once_the_second_is_refused(server: Server) -> None:
    before = state(server)
    folders = server.path(f"{HOME}/releases")
    command = server.enter(f"{HOME}/current/deploy/systemd/release")
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as first:
        eventually(lambda: len(list(folders.iterdir())) == 2)
        done = server.release()
        assert done.returncode == 1
        holder = re.search(r"in progress: process (\d+) of root, since", done.stderr)
        assert holder
        # Somebody loses patience.
        server.run("kill", holder[1])
        _, output = first.communicate(timeout=PATIENCE)
    assert first.returncode == 1
    assert "was not deployed" in output
    assert state(server) == before


def test_what_a_killed_release_left_is_gone_with_the_next(server: Server) -> None:
    before = state(server)
    left = f"{HOME}/releases/20991231-235959-00000000"
    server.run("cp", "-a", f"{HOME}/releases/{server.current}", left)
    server.run("rm", f"{left}/run")
    unit = f"{NAME}@{Path(left).name}"
    server.run(
        "systemctl", "enable", "-q", "--now", f"{unit}.socket", f"{unit}.service"
    )
    server.commit({"app/views.py": "def broken(:\n"})
    assert server.release().returncode == 1
    assert state(server) == before
    assert show(server, unit, "ActiveState") == "inactive"


def test_a_full_disk_stops_a_release_and_not_the_service(disk: Path) -> None:
    with Shared(disk, apart=True) as server:
        fill_and_release(server)


def fill_and_release(server: Server) -> None:
    server.commit({"app/views.py": "# More.\n"})
    before = state(server)
    room = shutil.disk_usage(server.folder)
    little = room.used + 20 * 1024 * 1024
    with Load(server, 2, ("/test/release", "/static/app.css")) as load:
        remount = ("mount", "-o", f"remount,size={little}", server.folder)
        subprocess.run(remount, check=True)
        done = server.release()
        load.wait_for(100)
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert load.dropped == []
    assert state(server) == before
    assert shutil.disk_usage(server.folder).free > 10 * 1024 * 1024, "it took nothing"
