"""What teams made of their services, over ten releases: all is kept, all is brought."""

import hashlib
import importlib
import os
import shutil
import stat
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from copier import run_copy, run_update

from tests.conftest import commit, git, run
from tests.support.copies import SECRETS, tree
from tests.support.environments import python_of
from tests.support.releases import (
    HANDED_OVER,
    RENAMED,
    VERSIONS,
    change_the_seeds,
    has,
    need_a_secret,
    released,
)
from tests.support.servers import Postgres
from tests.support.shared import made_once

HALF = (
    *("app/", "tests/app/", "README.md", "uv.lock", ".gitattributes", "AGENTS.md"),
    *(".devcontainer/", ".editorconfig", ".pre-commit-config.yaml", ".vscode/"),
)
# A service has one of them as long as it has their CI.
SEEDED_FOR_CI = (".github/dependabot.yml", "renovate.json")
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
        module = importlib.import_module(f"tests.template.edits.{file.stem}")
        assert module.__doc__, f"{file} does not say what the team did"
        conflicts = getattr(module, "CONFLICTS", [])
        found.append(Edit(file.stem, module.OWNER, conflicts, module.edit))
    return found


EDITS = edits()
OWN = [edit for edit in EDITS if edit.owner == "team"]


class Copies:
    """Copies of the template that nobody touched, each made once in a run."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.template = folder, folder / "bulwark"

    def of(self, version: str, answers: dict[str, Any] | None = None) -> Path:
        """Return a copy of a release, under git."""
        if answers and answers == answers_of(plain := self.of(version)):
            return plain
        name = hashlib.sha256(f"{version} {answers}".encode()).hexdigest()[:16]

        def make(folder: Path) -> None:
            run_copy(
                str(self.template),
                folder,
                answers or {},
                vcs_ref=version,
                defaults=True,
                quiet=True,
                unsafe=True,
            )
            commit(folder)

        return made_once(self.folder / name, make)


class Team:
    """A team with a service, and what it may expect of updates."""

    def __init__(self, copies: Copies, service: Path) -> None:
        self.copies, self.service = copies, service
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

    def bring(self, version: str = VERSIONS[-1], **answers: Any) -> "Outcome":
        """Update, and return what came of it."""
        had = answers_of(self.service)
        base = tree(self.copies.of(self.version, had))
        mine = tree(self.service)
        secrets = {name: (self.service / name).read_bytes() for name in SECRETS}
        with stdout_in(self.service.with_name("report")) as printed:
            run_update(
                *(self.service, answers),
                vcs_ref=version,
                defaults=True,
                overwrite=True,
                quiet=True,
                unsafe=True,
            )
        self.version = version
        now = answers_of(self.service)
        assert now == now | had | answers
        for name, before in secrets.items():
            check_secrets(self.service / name, before, version)
        fresh = tree(self.copies.of(version, now))
        waiting = unmerged(self.service)
        report = printed.read_text()
        return Outcome(version, base, mine, fresh, tree(self.service), waiting, report)

    def update(self, version: str = VERSIONS[-1], **answers: Any) -> None:
        """Update, and check that nothing is lost, missing or unexplained."""
        outcome = self.bring(version, **answers)
        assert outcome.waiting == self.conflicts
        outcome.check()


def answers_of(service: Path) -> dict[str, Any]:
    """Return what Copier was answered."""
    noted = yaml.safe_load((service / ".copier-answers.yml").read_text())
    return {name: value for name, value in noted.items() if name[0] != "_"}


@contextmanager
def stdout_in(file: Path) -> Iterator[Path]:
    """Have a file take what this process and its children print in the block."""
    sys.stdout.flush()
    before = os.dup(1)
    with file.open("w") as printed:
        os.dup2(printed.fileno(), 1)
    try:
        yield file
    finally:
        sys.stdout.flush()
        os.dup2(before, 1)
        os.close(before)


class Outcome(NamedTuple):
    """What came of an update, as trees of files."""

    version: str
    base: Tree  # a copy of the old release
    mine: Tree  # the service before
    fresh: Tree  # a copy of the new release
    now: Tree  # the service after
    waiting: set[str]  # files with conflicts
    report: str  # what the update printed

    def is_own(self, file: str) -> bool:
        """Tell whether a file is the team's alone."""
        if file == HANDED_OVER and has(self.version, change_the_seeds):
            return True
        if file in SEEDED_FOR_CI:
            return file in self.mine and file in self.fresh
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

    def check(self) -> None:
        """Check that each file is what it has to be, and that there is no other."""
        own = {file for file in self.mine if self.is_own(file)}
        theirs = {file for file in self.fresh if not self.is_own(file)} - self.deleted()
        assert self.now.keys() == own | theirs
        for file in own | theirs | self.missed():
            self.check_file(file)

    def check_file(self, file: str) -> None:
        """Check that a file has what both sides changed, or is in the report."""
        if file in self.waiting:
            assert f"- `{file}`:" in section(self.report, "Conflicts")
        if file in self.missed():
            assert f"`{file}`" in section(self.report, "Not here")
        if self.is_own(file):
            assert self.now.get(file) == self.mine.get(file), file
        elif file in self.fresh and file not in self.deleted():
            renamed = {new: old for old, new in RENAMED.items() if old in self.base}
            old = renamed.get(file, file)
            base = self.base.get(old, (b"", False))
            mine = self.mine.get(old, base)
            if mine == base:
                assert self.now[file] == self.fresh[file], file
            else:
                conflict = file in self.waiting
                check_merged(
                    base, mine, self.fresh[file], self.now[file], conflict=conflict
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
    return Copies(released(template, tmp_path_factory).parent)


@pytest.fixture
def team(copies: Copies, tmp_path: Path) -> Team:
    return Team(copies, tmp_path / "service")


# --- Each edit, and all of them -----------------------------------------------------


class Life:
    """A service with edits of different files, and what the last release made of it."""

    def __init__(self, team: Team) -> None:
        self.team = team
        self.touched: dict[str, set[str]] = {}  # the files of each edit, by its name
        self.files = tree(team.service)

    def make(self, edit: Edit) -> bool:
        """Make an edit, unless it touches what another one here has touched."""
        before = self.files
        edit.make(self.team.service)
        now = tree(self.team.service)
        touched = {f for f in {**before, **now} if before.get(f) != now.get(f)}
        meant = touched | set(edit.conflicts)
        if any(meant & others for others in self.touched.values()):
            git(self.team.service, "reset", "-q", "--hard")
            git(self.team.service, "clean", "-qfd")
            self.files = tree(self.team.service)  # ignored files stay
            return False
        self.touched[edit.name], self.files = meant, now
        commit(self.team.service)
        return True


@pytest.fixture(scope="module")
def lives(
    copies: Copies, tmp_path_factory: pytest.TempPathFactory
) -> list[tuple[Life, Outcome]]:
    """Return services that together have each edit once, all updated to the end."""
    lives: list[Life] = []
    for edit in EDITS:
        if not any(life.make(edit) for life in lives):
            team = Team(copies, tmp_path_factory.mktemp("life") / "service")
            team.begin(VERSIONS[0])
            lives.append(Life(team))
            assert lives[-1].make(edit), edit.name
    return [(life, life.team.bring()) for life in lives]


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.name)
def test_an_edit_outlives_all_releases(
    lives: list[tuple[Life, Outcome]], edit: Edit
) -> None:
    ((touched, outcome),) = [
        (life.touched[edit.name], outcome)
        for life, outcome in lives
        if edit.name in life.touched
    ]
    if edit.owner == "team":
        changed = {file for file in touched if file in outcome.base}
        assert {file for file in changed if not file.startswith(HALF)} <= SHARED
        assert not edit.conflicts
    assert outcome.waiting & touched == set(edit.conflicts)
    later = {new for old, new in RENAMED.items() if old in touched}
    for file in touched | later:
        outcome.check_file(file)


def test_beside_each_edit_all_is_as_the_last_release_has_it(
    lives: list[tuple[Life, Outcome]],
) -> None:
    for life, outcome in lives:
        assert outcome.waiting <= set().union(*life.touched.values())
        outcome.check()


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
    "answers",
    [
        {"ci": "gitlab", "database": "postgresql", "proxy": "apache"},
        {"deploy": ["systemd"], "robots": True},
        {"aliases": ["www.shop.example.com"], "tls": "modern"},
    ],
    ids=" ".join,
)
def test_answers_may_change_with_an_update(team: Team, answers: dict[str, Any]) -> None:
    team.begin(VERSIONS[0])
    team.make(*OWN)
    team.update(**answers)


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


@pytest.fixture(scope="module")
def old_and_new(
    copies: Copies, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """Return a team's first service, and the same after each of ten updates."""
    folder = tmp_path_factory.mktemp("ten years")
    team = Team(copies, folder / "new")
    team.begin(VERSIONS[0])
    team.make(*OWN)
    packages = folder / "packages"
    packages.mkdir()
    (team.service / ".venv").symlink_to(packages)
    (team.service / ".python-version").write_text(python_of("after ten updates"))
    environment = os.environ | {"APP_DATABASE_URL": f"sqlite:///{folder}/first.db"}
    run("bin/setup", cwd=team.service, env=environment)
    run("bin/flask", "access", "--write", cwd=team.service, env=environment)
    commit(team.service)
    old = Path(shutil.copytree(team.service, folder / "old", symlinks=True))
    for version in VERSIONS[1:]:
        team.update(version)
        commit(team.service)
    return old, team.service


@pytest.mark.parametrize(
    "kind",
    [
        "sqlite",
        pytest.param("postgresql", marks=pytest.mark.needs("postgresql")),
    ],
)
def test_data_live_through_every_release(
    old_and_new: tuple[Path, Path],
    tmp_path: Path,
    request: pytest.FixtureRequest,
    kind: str,
) -> None:
    old, new = old_and_new
    data = f"sqlite:///{tmp_path}/data.db"
    if kind == "postgresql":
        server: Postgres = request.getfixturevalue("postgres")
        data = server.database()
    environment = os.environ | {"APP_DATABASE_URL": data}

    def sql(*statements: str) -> str:
        return run(".venv/bin/python", "-c", SQL, data, *statements, cwd=new)

    run("bin/flask", "prepare", cwd=old, env=environment)
    sql(
        "UPDATE users SET phone = '112'",
        "INSERT INTO invoices SELECT 1, '2026-1', id FROM users",
    )
    run("bin/setup", cwd=new, env=environment)
    found = sql(
        "SELECT phone, number, role_id, language FROM users"
        " JOIN invoices ON customer_id = users.id"
        " JOIN users_roles ON users.id = user_id"
    )
    assert found == "[('112', '2026-1', 1, None)]\n"


def test_an_old_service_passes_the_tests_of_the_last_release(
    old_and_new: tuple[Path, Path],
) -> None:
    environment = os.environ | {"APP_DATABASE_URL": "sqlite://"}
    run("bin/setup", cwd=old_and_new[1])
    run("bin/test", "-q", cwd=old_and_new[1], env=environment)
