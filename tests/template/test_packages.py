"""What a service installs: its lock, how old packages are, what builds them."""

import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from copier import run_copy, run_recopy, run_update

from tests.conftest import ROOT, Make, commit, git, release, run
from tests.support.package_index import Wheel, index

SEED = ROOT / "template/uv.lock"
PROJECT = ROOT / "template/pyproject.toml"
# Where PyPI is, as a lock has it that can be used anywhere.
PUBLIC = {"pypi.org", "files.pythonhosted.org"}
# The index of this machine must not decide what a lock is compared with.
NO_INDEX = {
    name: value
    for name, value in os.environ.items()
    if not re.match(r"UV_(DEFAULT_)?INDEX|UV_EXCLUDE_NEWER", name)
}
NOW = datetime.now(UTC)
OLD, NEW = NOW - timedelta(days=30), NOW - timedelta(hours=2)


def uv(folder: Path, *arguments: str, **environment: str) -> str:
    return run(os.environ["UV"], *arguments, cwd=folder, env=NO_INDEX | environment)


def versions(lock: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for package in tomllib.loads(lock)["package"]:
        found.setdefault(package["name"], set()).add(package["version"])
    return found


# --- The lock that a service begins with ----------------------------------------------


def test_the_lock_that_is_seeded_fits_and_leads_to_the_public_index(
    tmp_path: Path,
) -> None:
    for file in (SEED, PROJECT):
        shutil.copy(file, tmp_path)
    # With neither network nor cache: nothing is left to be resolved.
    uv(tmp_path, "lock", "--check", "--offline", UV_CACHE_DIR=str(tmp_path / "cache"))
    hosts = set(re.findall(r"[a-z]+://([^/\"]+)", SEED.read_text()))
    assert hosts == PUBLIC


def test_a_new_service_installs_what_the_tests_of_the_template_ran_with(
    ready: Path,
) -> None:
    """Another index may give the packages, but in no other version."""
    locked = versions(SEED.read_text())
    assert versions((ready / "uv.lock").read_text()) == locked
    installed = run(
        *(ready / ".venv/bin/python", "-c"),
        "import importlib.metadata as m\n"
        "for d in m.distributions(): print(d.name, d.version)",
        cwd=ready,
    )
    for line in installed.splitlines():
        name, version = line.split()
        assert version in locked[re.sub(r"[-_.]+", "-", name).lower()]


class Team(NamedTuple):
    """A service whose lock is its team's, and the template that it was made from."""

    service: Path
    template: Path

    def update(self) -> None:
        commit(self.service)
        answers: dict[str, Any] = {"defaults": True, "overwrite": True, "quiet": True}
        run_update(self.service, **answers, unsafe=True)
        assert git(self.service, "ls-files", "--unmerged") == ""


@pytest.fixture
def team(small_template: Path, tmp_path: Path) -> Team:
    template, service = tmp_path / "template", tmp_path / "service"
    shutil.copytree(small_template, template, symlinks=True)
    run_copy(str(template), service, defaults=True, unsafe=True, quiet=True)
    assert (service / "uv.lock").read_bytes() == SEED.read_bytes()
    return Team(service, template)


def test_an_update_keeps_the_teams_lock_and_asks_for_no_more_than_it_needs(
    team: Team,
) -> None:
    lock = team.service / "uv.lock"
    uv(team.service, "lock", "--quiet", "--upgrade-package", "click==8.3.1")
    own = lock.read_text()
    assert versions(own)["click"] == {"8.3.1"}
    with (team.template / "template/uv.lock").open("a") as tested:
        tested.write("# what the next release was tested with\n")
    project = team.template / "template/pyproject.toml"
    project.write_text(project.read_text().replace('"nh3>=0.3"', '"nh3>=0.3.1"'))
    release(team.template, "v9999.1.0")
    team.update()
    assert lock.read_text() == own
    uv(team.service, "lock", "--quiet")
    assert versions(lock.read_text()) == versions(own)
    uv(team.service, "lock", "--check", "--offline")


def test_neither_recopy_nor_drift_take_the_teams_lock_for_the_templates(
    team: Team,
) -> None:
    (team.service / "uv.lock").write_text("# ours\n")
    commit(team.service)
    assert "uv.lock" not in run("bin/drift", cwd=team.service)
    options: dict[str, Any] = {"defaults": True, "overwrite": True, "quiet": True}
    run_recopy(team.service, **options, unsafe=True)
    assert (team.service / "uv.lock").read_text() == "# ours\n"


def test_an_update_keeps_what_a_team_has_dependabot_do(
    team: Team, tmp_path: Path
) -> None:
    seeded = team.template / "template/.github/dependabot.yml.jinja"
    before = seeded.read_text()
    own = tmp_path / "own"
    seeded.unlink()  # a release that brings none
    release(team.template, "v9999.1.0")
    run_copy(str(team.template), own, defaults=True, unsafe=True, quiet=True)
    seeded.write_text(f"{before}# news\n")
    release(team.template, "v9999.2.0")
    for service in (own, team.service):
        config = service / ".github/dependabot.yml"
        config.write_text("version: 2\nupdates: []\n")
        team._replace(service=service).update()
        assert config.read_text() == "version: 2\nupdates: []\n"


# --- What builds a package that comes as source ---------------------------------------


def test_what_comes_as_source_is_built_by_the_pinned_setuptools(tmp_path: Path) -> None:
    packages = tomllib.loads(SEED.read_text())["package"]
    sources = [
        f"{package['name']}=={package['version']}"
        for package in packages
        if "registry" in package["source"] and not package.get("wheels")
    ]
    assert sources, "nothing is built any more: no version needs to be pinned"
    (pin,) = re.findall(r'"setuptools==([\d.]+)"', PROJECT.read_text())
    other = "80.9.0"
    (tmp_path / "pyproject.toml").write_text(
        PROJECT.read_text().replace(f'"setuptools=={pin}"', f'"setuptools=={other}"')
    )
    built = (
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-cache",
        "--target",
        "built",
    )
    run(os.environ["UV"], *built, *sources, cwd=tmp_path)
    made_by = [file.read_text() for file in tmp_path.glob("built/*.dist-info/WHEEL")]
    assert len(made_by) == len(sources)
    assert all(f"Generator: setuptools ({other})\n" in text for text in made_by)


# --- How old a package is -------------------------------------------------------------


class Shop(NamedTuple):
    """A project with the template's settings of uv, and an index with one package."""

    folder: Path
    url: str
    authority: Path

    def lock(self, **environment: str) -> subprocess.CompletedProcess[str]:
        own = {
            "UV_DEFAULT_INDEX": self.url,
            "SSL_CERT_FILE": str(self.authority),
            "UV_CACHE_DIR": str(self.folder / "cache"),
            "UV_HTTP_RETRIES": "0",
        }
        return subprocess.run(
            [os.environ["UV"], "lock"],
            cwd=self.folder,
            env=NO_INDEX | own | environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def locked(self, **environment: str) -> set[str]:
        done = self.lock(**environment)
        assert done.returncode == 0, done.stderr
        return versions((self.folder / "uv.lock").read_text())["hello"]


@pytest.fixture
def shop(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Shop]:
    dated = request.param
    wheels = [
        Wheel(version, {"hello.py": ""}, uploaded=uploaded if dated else None)
        for version, uploaded in (("1.0", OLD), ("1.1", NEW))
    ]
    settings = PROJECT.read_text().partition("[tool.uv]")[2].partition("\n[")[0]
    (tmp_path / "pyproject.toml").write_text(
        "[project]\nname = 'service'\nversion = '1'\nrequires-python = '>=3.11'\n"
        f"dependencies = ['hello']\n[tool.uv]{settings}\n".replace(
            '["bulwark", "dev"]', "[]"
        )
    )
    with index(tmp_path, {"hello": wheels}) as (url, authority):
        yield Shop(tmp_path, url, authority)


@pytest.mark.parametrize("shop", [True], indirect=True, ids=["an index with dates"])
def test_a_package_of_today_is_locked_only_where_a_team_names_it(shop: Shop) -> None:
    assert shop.locked() == {"1.0"}
    with (shop.folder / "pyproject.toml").open("a") as project:
        project.write('\n[tool.uv.exclude-newer-package]\nhello = "0 days"\n')
    (shop.folder / "uv.lock").unlink()
    assert shop.locked() == {"1.1"}


@pytest.mark.parametrize("shop", [False], indirect=True, ids=["an index without dates"])
def test_an_index_without_dates_can_be_used_as_the_manual_has_it(shop: Shop) -> None:
    refused = shop.lock()
    assert refused.returncode != 0
    assert "upload date" in refused.stderr
    assert shop.locked(UV_EXCLUDE_NEWER="false") == {"1.1"}
    manual = (ROOT / "template/docs/packages.md").read_text()
    (block,) = re.findall(
        r"```toml\n(\[\[tool\.uv\.index\]\]\n.*?)```", manual, re.DOTALL
    )
    with (shop.folder / "pyproject.toml").open("a") as project:
        project.write("\n" + re.sub(r'url = ".*"', f'url = "{shop.url}"', block))
    (shop.folder / "uv.lock").unlink()
    assert shop.locked(UV_DEFAULT_INDEX="") == {"1.1"}


# --- Which uv -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("has", "used"),
    [("uv 0.9.9 (old)", "brought"), ("uv 0.9.17", "has"), ("uv 0.13.0 (x)", "has")],
)
def test_a_uv_that_is_too_old_for_the_project_gives_way(
    tmp_path: Path, has: str, used: str
) -> None:
    (tmp_path / "bin").mkdir()
    for name in ("uv", "common.sh", "installers.sh"):
        shutil.copy(ROOT / "template/bin" / name, tmp_path / "bin")
    shutil.copy(PROJECT, tmp_path)
    (named,) = re.findall(r"(?m)^version=(.+)$", (tmp_path / "bin/uv").read_text())
    packages = tmp_path / ".uv/lib/python3/site-packages"
    (packages / f"uv-{named}.dist-info").mkdir(parents=True)
    script = '#!/bin/sh\n[ "$1" != --version ] || {{ echo "{}"; exit; }}\necho {}\n'
    for file, output, word in (
        (tmp_path / ".uv/bin/uv", f"uv {named}", "brought"),
        (tmp_path / "machine/uv", has, "has"),
    ):
        file.parent.mkdir()
        file.write_text(script.format(output, word))
        file.chmod(0o755)
    environment = {"PATH": f"{tmp_path}/machine:/usr/bin:/bin", "HOME": str(tmp_path)}
    assert run("bin/uv", "sync", cwd=tmp_path, env=environment).strip() == used


# --- What proposes newer ones ---------------------------------------------------------


def dependabot(folder: Path) -> dict[str, dict[str, Any]]:
    """Return its settings for each kind; it refuses YAML's aliases."""
    text = (folder / ".github/dependabot.yml").read_text()
    assert not [
        event for event in yaml.parse(text) if isinstance(event, yaml.AliasEvent)
    ]
    updates = yaml.safe_load(text)["updates"]
    return {update["package-ecosystem"]: update for update in updates}


def test_dependabot_leaves_alone_what_releases_of_the_template_raise(
    make: Make,
) -> None:
    service = make(deploy=["systemd"])
    found = dependabot(service)
    assert found.keys() == {"uv", "github-actions"}
    own = {
        f".github/workflows/{file.name}" for file in service.glob(".github/workflows/*")
    }
    assert set(found["github-actions"]["exclude-paths"]) == own
    assert found["uv"]["versioning-strategy"] == "lockfile-only"
    # uv counts hours, Dependabot days: with one more, uv takes what it proposes.
    (days,) = re.findall(r'exclude-newer = "(\d+) days"', PROJECT.read_text())
    assert all(
        update["cooldown"]["default-days"] > int(days) for update in found.values()
    )


def test_dependabot_looks_at_images_where_there_are_some(make: Make) -> None:
    service = make(deploy=["docker"])
    found = dependabot(service)
    assert found.keys() == {"uv", "github-actions", "docker", "docker-compose"}
    for name in ("docker", "docker-compose"):
        folder = service / found[name]["directory"].strip("/")
        assert [
            file
            for file in folder.iterdir()
            if re.search("Dockerfile|compose", file.name)
        ]
