"""What teams made of their services, over ten releases: all is kept, all is brought."""

import functools
import importlib
import os
import shutil
import stat
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from copier import run_copy, run_update
from jinja2 import Environment

from tests.conftest import commit, git, run
from tests.releases import (
    HANDED_OVER,
    RENAMED,
    VERSIONS,
    change_the_seeds,
    has,
    need_a_secret,
    release_all,
)
from tests.servers import Postgres
from tests.test_copy import SECRETS, tree

MEMORY = Path("/dev/shm")
HALF = ("app/", "tests/app/", "README.md")
# Files of the template with a place for the team in them.
SHARED = {".gitignore", "pyproject.toml"}
# Run by a service's Python: a URL, and statements of which it prints the last's rows.
SQL = """
import sys
from sqlalchemy import create_engine, text
url, *statements = sys.argv[1:]
with create_engine(url.replace("ql://", "ql+psycopg://")).begin() as database:
    for statement in statements:
        result = database.execute(text(statement))
    print(result.all() if result.returns_rows else "")
"""
File = tuple[bytes, bool]  # content, and whether it runs
Tree = dict[str, File]


class Edit(NamedTuple):
    name: str
    owner: str
    conflicts: list[str]
    make: Callable[[Path], None]


def edits() -> list[Edit]:
    """Return what tests/edits holds, by name."""
    found = []
    for file in sorted(Path(__file__).parent.glob("edits/[!_]*.py")):
        module = importlib.import_module(f"tests.edits.{file.stem}")
        assert module.__doc__, f"{file} does not say what the team did"
        conflicts = getattr(module, "CONFLICTS", [])
        found.append(Edit(file.stem, module.OWNER, conflicts, module.edit))
    return found


EDITS = edits()
OWN = [edit for edit in EDITS if edit.owner == "team"]


class Copies:
    """Copies of the template that nobody touched, made when they are asked for."""

    def __init__(self, template: Path, folder: Path) -> None:
        self.template, self.folder = template, folder
        self.made: dict[str, Path] = {}

    def of(self, version: str, answers: dict[str, Any] | None = None) -> Path:
        """Return a copy of a release, under git."""
        name = f"{version} {answers}"
        if name not in self.made:
            copy = self.made[name] = self.folder / str(len(self.made))
            run_copy(
                str(self.template),
                copy,
                answers or {},
                vcs_ref=version,
                defaults=True,
                quiet=True,
                unsafe=True,
            )
            commit(copy)
        return self.made[name]


class Team:
    """A team with a service, and what it may expect of updates."""

    def __init__(
        self, copies: Copies, folder: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        self.copies, self.service, self.capfd = copies, folder, capfd
        self.version = ""
        self.conflicts: set[str] = set()

    def begin(self, version: str) -> None:
        """Take a new service."""
        self.version = version
        shutil.copytree(self.copies.of(version), self.service, symlinks=True)

    def make(self, *edits: Edit) -> None:
        """Change the service, and commit it."""
        for edit in edits:
            edit.make(self.service)
            self.conflicts |= set(edit.conflicts)
        commit(self.service)

    def answers(self) -> dict[str, Any]:
        """Return what Copier was answered."""
        noted = yaml.safe_load((self.service / ".copier-answers.yml").read_text())
        return {name: value for name, value in noted.items() if name[0] != "_"}

    def update(self, version: str = VERSIONS[-1], **answers: Any) -> None:
        """Update, and check that nothing is lost, missing or unexplained."""
        had = self.answers()
        base = tree(self.copies.of(self.version, had))
        mine = tree(self.service)
        secrets = {name: (self.service / name).read_bytes() for name in SECRETS}

        self.capfd.readouterr()
        run_update(
            *(self.service, answers),
            vcs_ref=version,
            defaults=True,
            overwrite=True,
            quiet=True,
            unsafe=True,
        )
        report = self.capfd.readouterr().out
        self.version = version

        assert self.answers() == self.answers() | had | answers
        waiting = unmerged(self.service)
        assert waiting == self.conflicts
        for file in waiting:
            assert f"- `{file}`:" in section(report, "Conflicts")
        fresh = tree(self.copies.of(version, self.answers()))
        outcome = Outcome(version, base, mine, fresh, tree(self.service))
        for file in outcome.missed():
            assert f"`{file}`" in section(report, "Not here")
        outcome.check(waiting)
        for name, before in secrets.items():
            check_secrets(self.service / name, before, version)


class Outcome(NamedTuple):
    """What came of an update, as trees of files."""

    version: str
    base: Tree  # a copy of the old release
    mine: Tree  # the service before
    fresh: Tree  # a copy of the new release
    now: Tree  # the service after

    def is_own(self, file: str) -> bool:
        """Tell whether a file is the team's alone."""
        if file == HANDED_OVER and has(self.version, change_the_seeds):
            return True
        return file.startswith(HALF) or file not in {**self.base, **self.fresh}

    def deleted(self) -> set[str]:
        """Return files of the template that the team took away."""
        return {file for file in self.base.keys() - self.mine if not self.is_own(file)}

    def dropped(self) -> set[str]:
        """Return files that the release or another answer took away."""
        gone = self.base.keys() - self.fresh.keys() - RENAMED.keys()
        return {file for file in gone - self.deleted() if not self.is_own(file)}

    def missed(self) -> set[str]:
        """Return files with a change that one side made and the other took away."""
        return {
            *(
                file
                for file in self.deleted()
                if self.fresh.get(file) != self.base[file]
            ),
            *(
                file
                for file in self.dropped()
                if self.mine[file][0] != self.base[file][0]
            ),
        }

    def check(self, waiting: set[str]) -> None:
        """Check that each file is what it has to be, and that there is no other."""
        own = {file: self.mine[file] for file in self.mine if self.is_own(file)}
        assert {file: self.now.get(file) for file in own} == own
        theirs = {file for file in self.fresh if not self.is_own(file)} - self.deleted()
        assert self.now.keys() == own.keys() | theirs
        before = {new: old for old, new in RENAMED.items() if old in self.base}
        for file in theirs:
            old = before.get(file, file)
            base = self.base.get(old, (b"", False))
            mine = self.mine.get(old, base)
            if mine == base:
                assert self.now[file] == self.fresh[file], file
            else:
                check_merged(
                    *(base, mine, self.fresh[file], self.now[file]),
                    conflict=file in waiting,
                )


def check_merged(
    base: File, mine: File, fresh: File, now: File, *, conflict: bool
) -> None:
    """Check that a file has what both sides changed: its lines, and whether it runs."""
    was, own, theirs, lines = (
        Counter(line for line in content.split(b"\n") if line.strip())
        for content, _ in (base, mine, fresh, now)
    )
    if conflict:
        assert not ((own - was) | (theirs - was)) - lines
    else:
        for line in was | own | theirs | lines:
            same = own[line] == theirs[line]  # both did the same, or nothing
            both = own[line] + theirs[line] - was[line]
            assert lines[line] == (own[line] if same else both), line
    assert now[1] == (mine[1] if mine[1] != base[1] else fresh[1])


def unmerged(service: Path) -> set[str]:
    listed = git(service, "ls-files", "--unmerged", "-z").split("\0")
    return {line.partition("\t")[2] for line in listed if line}


def section(report: str, heading: str) -> str:
    return report.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def check_secrets(file: Path, before: bytes, version: str) -> None:
    """Check that no value has changed, and that a new one is at the end."""
    now = file.read_bytes()
    assert now.startswith(before)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert (b"APP_NEW_KEY=" in now) == has(version, need_a_secret)


@pytest.fixture(scope="session")
def copies(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Copies:
    """Return copies of each release of a template that has ten more."""
    folder = tmp_path_factory.mktemp("updates")
    released = Path(shutil.copytree(template, folder / "bulwark", symlinks=True))
    release_all(released)
    return Copies(released, folder)


@pytest.fixture
def team(
    copies: Copies,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Team:
    """Return a team whose updates take half the time that they would."""
    if MEMORY.is_dir():  # for the two copies that an update throws away
        monkeypatch.setattr(tempfile, "tempdir", str(MEMORY))
    # Copier compiles the name of a folder once for each file in it.
    compile_once = functools.cache(Environment.compile)
    monkeypatch.setattr(Environment, "compile", compile_once)
    return Team(copies, tmp_path / "service", capfd)


# --- Each edit, and all of them -----------------------------------------------------


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.name)
def test_an_edit_outlives_all_releases(team: Team, edit: Edit) -> None:
    team.begin(VERSIONS[0])
    before = tree(team.service)
    team.make(edit)
    if edit.owner == "team":
        now = tree(team.service)
        changed = {file for file in before if now.get(file) != before[file]}
        assert {file for file in changed if not file.startswith(HALF)} <= SHARED
        assert not edit.conflicts
    team.update()


@pytest.mark.parametrize("version", VERSIONS[:-1])
def test_all_edits_of_a_teams_half_outlive_an_update(team: Team, version: str) -> None:
    team.begin(version)
    team.make(*OWN)
    team.update()


def test_edits_of_the_base_are_kept_or_shown_together_too(team: Team) -> None:
    team.begin(VERSIONS[0])
    team.make(*EDITS)
    team.update()


def test_edits_of_the_base_are_kept_or_shown_release_by_release(team: Team) -> None:
    team.begin(VERSIONS[0])
    team.make(*(edit for edit in EDITS if not edit.conflicts))
    for version in VERSIONS[1:]:
        team.update(version)
        commit(team.service)


@pytest.mark.parametrize(
    "answer",
    [
        {"aliases": ["www.shop.example.com"]},
        {"ci": "gitlab"},
        {"database": "postgresql"},
        {"deploy": ["systemd"]},
        {"proxy": "apache"},
        {"robots": True},
        {"tls": "modern"},
    ],
    ids=" ".join,
)
def test_an_answer_may_change_with_an_update(
    team: Team, answer: dict[str, Any]
) -> None:
    team.begin(VERSIONS[0])
    team.make(*OWN)
    team.update(**answer)


def test_what_was_edited_in_an_option_is_shown_when_the_option_goes(team: Team) -> None:
    team.begin(VERSIONS[0])
    team.make(*(edit for edit in EDITS if not edit.conflicts))
    team.update(deploy=[], ci="none")


def test_an_option_that_comes_back_is_as_the_release_has_it(team: Team) -> None:
    team.begin(VERSIONS[0])
    team.make(*OWN)
    team.update(deploy=[], ci="none", proxy="apache")
    commit(team.service)
    team.update(deploy=["docker", "systemd"], ci="github", proxy="nginx")


@pytest.mark.parametrize(
    "kind",
    [
        "sqlite",
        pytest.param("postgresql", marks=pytest.mark.needs("postgresql")),
    ],
)
def test_a_service_lives_through_every_release_with_its_data(
    team: Team, tmp_path: Path, request: pytest.FixtureRequest, kind: str
) -> None:
    data, tests = f"sqlite:///{tmp_path}/data.db", "sqlite://"
    if kind == "postgresql":
        server: Postgres = request.getfixturevalue("postgres")
        data, tests = server.database(), server.database()
    environment = os.environ | {"APP_DATABASE_URL": data}

    def sql(*statements: str) -> str:
        python = (".venv/bin/python", "-c", SQL, data)
        return run(*python, *statements, cwd=team.service)

    team.begin(VERSIONS[0])
    team.make(*OWN)
    packages = tmp_path / "packages"
    packages.mkdir()
    (team.service / ".venv").symlink_to(packages)
    run("bin/setup", cwd=team.service, env=environment)
    run("bin/flask", "access", "--write", cwd=team.service, env=environment)
    commit(team.service)
    sql(
        "UPDATE users SET phone = '112'",
        "INSERT INTO invoices SELECT 1, '2026-1', id FROM users",
    )

    for version in VERSIONS[1:]:
        team.update(version)
        commit(team.service)

    run("bin/setup", cwd=team.service, env=environment)
    found = sql(
        "SELECT phone, number, role_id, language FROM users"
        " JOIN invoices ON customer_id = users.id"
        " JOIN users_roles ON users.id = user_id"
    )
    assert found == "[('112', '2026-1', 1, None)]\n"
    environment["APP_DATABASE_URL"] = tests
    run("bin/test", "-q", cwd=team.service, env=environment)
