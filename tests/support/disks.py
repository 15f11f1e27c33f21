"""Disks of servers on which the service is installed, made once a run.

`installed` returns one, whichever worker asks first; `Server(disk)` boots a copy of it.
"""

import os
import shutil
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
from copier import run_copy

from tests.conftest import ROOT, commit, run
from tests.support.deployed import ALIAS, HOME, TEAM, UNITS, Server
from tests.support.shared import made_once, shared_folder
from tests.support.visitor import DOMAIN

ANSWERS = {"project_name": "Edge Test", "domain": DOMAIN, "ci": "none"}
# What is installed on a bare machine of each suite; other disks are made of these.
BARE: dict[str, dict[str, Any]] = {
    "bookworm": {"proxy": "apache", "database": "postgresql"},
    "trixie": {"proxy": "nginx", "aliases": [ALIAS]},
}
PYTHON = {"bookworm": "3.11", "trixie": "3.13"}

# What the team has added: pages where a request leaves a trace, takes long, and learns
# which release answers.
VIEWS = """

import time
from pathlib import Path
from flask import current_app, request
from bulwark.identity.csrf import csrf
from bulwark.web.rate_limits import limit


@blueprint.post("/test/keep")
@csrf.exempt
@public
def keep() -> ResponseReturnValue:
    with Path(current_app.instance_path, "kept").open("a") as file:
        file.write(request.get_data(as_text=True) + "\\n")
    return {"kept": True}


@blueprint.get("/test/slow/<int:seconds>")
@public
@limit("1000 per minute")
def slow(seconds: int) -> ResponseReturnValue:
    time.sleep(seconds)
    return {"seconds": seconds}


@blueprint.get("/test/release")
@public
def release() -> ResponseReturnValue:
    return {"release": Path.cwd().name}
"""


def installed(
    factory: pytest.TempPathFactory, suite: str = "trixie", proxy: str = "nginx"
) -> Path:
    """Return the disk of a server with the service, made when there is none yet."""
    shared = shared_folder(factory)

    def make(disk: Path) -> None:
        folder = shared / f"{suite}-{proxy}"
        shutil.rmtree(folder, ignore_errors=True)  # of one that failed
        answers = BARE[suite] | {"proxy": proxy}
        if proxy == BARE[suite]["proxy"]:
            _install(make_service(folder, suite, **answers), suite, disk)
        else:
            before = installed(factory, suite, str(BARE[suite]["proxy"]))
            _change_proxy(copy_template(folder, **answers), before, disk)

    return made_once(shared / f"{suite}-{proxy}-disk", make)


def _install(service: Path, suite: str, disk: Path) -> None:
    with Server(suite=suite) as server:
        begin = time.monotonic()
        bring(server, service)
        done = server.install()
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        disk.with_suffix(".seconds").write_text(str(time.monotonic() - begin))
        server.keep(disk)


def _change_proxy(service: Path, before: Path, disk: Path) -> None:
    """Make a disk of another one: the team has answered otherwise, and installs."""
    folders = ("app", "deploy")
    with Server(before) as server:
        old = server.proxy
        new = ({"nginx", "apache"} - {old}).pop()
        server.run("systemctl", "disable", "-q", "--now", UNITS[old])
        for folder in folders:
            server.run("rm", "-r", f"{TEAM}/{folder}/{old}")
            server.copy(service / folder / new, f"{TEAM}/{folder}/{new}")
        server.write(f"{TEAM}/service.toml", (service / "service.toml").read_text())
        server.commit({})
        server.run("git", "-C", f"{HOME}/repository", "pull", "-q")
        for folder in folders:
            here = f"{HOME}/current/{folder}"
            server.run("rm", "-r", f"{here}/{old}")
            server.run("cp", "-R", f"{HOME}/repository/{folder}/{new}", here)
        server.run("cp", f"{HOME}/repository/service.toml", f"{HOME}/current")
        done = server.install()
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        server.keep(disk)


def copy_template(folder: Path, **answers: Any) -> Path:
    """Make a service of the working tree."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the working tree is not committed
        run_copy(
            str(ROOT),
            folder,
            ANSWERS | answers,
            vcs_ref="HEAD",
            defaults=True,
            unsafe=True,
            quiet=True,
        )
    with (folder / "app/views.py").open("a") as file:
        file.write(VIEWS)
    return folder


def make_service(folder: Path, suite: str, **answers: Any) -> Path:
    """Make a service of the working tree, with its packages in uv's cache."""
    copy_template(folder, **answers)
    uv = os.environ["UV"]
    # No answer changes what is locked, and to resolve it takes longer than to check it.
    locked = folder.parent / "uv.lock"
    if locked.exists():
        shutil.copy(locked, folder)
    run(uv, "lock", "--quiet", cwd=folder)
    shutil.copy(folder / "uv.lock", locked)
    packages = folder.parent / f"{folder.name}-packages"
    export = ("export", "-q", "--locked", "--no-dev", "-o", packages / "locked.txt")
    packages.mkdir()
    run(uv, *export, cwd=folder)
    target = ("--target", packages, "--python-version", PYTHON[suite])
    for wanted in (packages / "locked.txt", "deploy/certbot/requirements.txt"):
        run(uv, "pip", "install", "-q", "--no-deps", *target, "-r", wanted, cwd=folder)
    shutil.rmtree(packages)
    return folder


def bring(server: Server, service: Path) -> None:
    """Do what comes before deploy/systemd/install: clone, and bring the settings."""
    settings = server.path("/root/.env.production")
    shutil.copy(service / ".env.production", settings)
    with settings.open("a") as file:
        file.write("APP_MAIL_URL=smtp://127.0.0.1:25\n")
    commit(service)
    server.copy(service, TEAM)
    server.write("/root/.gitconfig", "[user]\nname = Team\nemail = team@example.com\n")
    server.run("git", "-C", "/", "clone", "-q", TEAM, f"{HOME}/repository")
