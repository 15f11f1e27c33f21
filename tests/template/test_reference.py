"""bin/reference: the generated app as a repository, a commit for each release."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from copier import run_copy
from copier._vcs import get_repo

from tests.conftest import ROOT, git, release, run
from tests.support.copies import tree, update
from tests.support.quick_copier import IN_PROCESSES

EMPTY = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"  # git's tree without files
ADDRESS = "https://git.example.com/bulwark.git"


@pytest.fixture(scope="module")
def checkout(small_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a checkout with three releases, and Copier at hand."""
    folder = Path(
        shutil.copytree(
            small_template, tmp_path_factory.mktemp("reference") / "checkout"
        )
    )
    (folder / ".venv").symlink_to(ROOT / ".venv")
    with (folder / ".git/info/exclude").open("a") as file:
        file.write("/.venv\n")
    git(folder, "remote", "set-url", "origin", ADDRESS)
    git(folder, "tag", "-d", *git(folder, "tag").split())
    git(folder, "tag", "v1.0.0")
    with (folder / "template/bulwark/web/headers.py").open("a") as file:
        file.write("# safer\n")
    with (folder / "template/app/views.py").open("a") as file:
        file.write("# shorter\n")
    release(folder, "v1.1.0")
    git(folder, "rm", "-q", "template/docs/intrusion.md")
    (folder / "template/docs/detection.md").write_text("New\n")
    release(folder, "v1.10.0rc1")
    release(folder, "v1.10.0")
    return folder


@pytest.fixture(scope="module")
def reference(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built") / "the reference"
    build(checkout, folder)
    return folder


def attempt(checkout: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [checkout / "bin/reference", *arguments],
        env=os.environ | IN_PROCESSES,
        capture_output=True,
        text=True,
        check=False,
    )


def build(checkout: Path, *arguments: str | Path) -> None:
    done = attempt(checkout, *arguments)
    assert done.returncode == 0, done.stderr


def test_each_release_is_a_tagged_commit_in_their_order(reference: Path) -> None:
    tags = git(reference, "log", "--reverse", "--format=%D").split("\n")
    assert [line.rpartition("tag: ")[2] for line in tags if line] == [
        "v1.0.0",
        "v1.1.0",
        "v1.10.0rc1",
        "v1.10.0",
    ]


def test_the_difference_of_two_tags_is_what_a_release_changes(reference: Path) -> None:
    names = git(reference, "diff", "--name-status", "v1.0.0", "v1.1.0").splitlines()
    assert [name.split() for name in names] == [
        ["M", ".copier-answers.yml"],
        ["M", "app/views.py"],
        ["M", "bulwark/web/headers.py"],
    ]


def test_a_release_is_what_a_fresh_copy_of_it_is(
    checkout: Path, reference: Path, tmp_path: Path
) -> None:
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", str(reference), "clone")
    for tag in ("v1.0.0", "v1.1.0", "v1.10.0"):
        git(clone, "checkout", "-q", tag)
        fresh = tmp_path / tag
        run_copy(
            str(checkout),
            fresh,
            defaults=True,
            unsafe=True,
            quiet=True,
            vcs_ref=tag,
        )
        answers = (clone / ".copier-answers.yml").read_text()
        assert f"_src_path: {ADDRESS}\n" in answers
        assert f"_commit: {tag}\n" in answers
        there, here = tree(fresh), tree(clone)
        del there[".copier-answers.yml"], here[".copier-answers.yml"]
        assert here == there


def test_author_and_date_are_those_of_the_release(
    checkout: Path, reference: Path
) -> None:
    for tag in ("v1.0.0", "v1.10.0"):
        form = ("log", "-1", "--format=%an %ae %aI %cn %ce %cI", tag)
        assert git(reference, *form) == git(checkout, *form)


def test_an_example_is_a_repository_of_its_own(checkout: Path, tmp_path: Path) -> None:
    clone, folder = unreleased(checkout, tmp_path), tmp_path / "helpdesk"
    without = git(clone, "commit-tree", "-m", "No examples", EMPTY).strip()
    git(clone, "tag", "v0.9.0", without)
    git(clone, "tag", "v1.0.0")
    build(clone, folder, "--example", "helpdesk", "--source", ADDRESS)
    assert git(folder, "tag").split() == ["v1.0.0"]
    example = ROOT / "examples/helpdesk"
    for file in git(example, "ls-files", "app", "tests").splitlines():
        assert (folder / file).read_bytes() == (example / file).read_bytes(), file
    assert 'name = "Help desk"' in (folder / "service.toml").read_text()
    run(os.environ["UV"], "lock", "--check", cwd=folder)
    refused = attempt(clone, folder, "--example", "shop", "--source", ADDRESS)
    assert "No release has an example that is called shop" in refused.stderr


def test_no_secret_is_in_it(reference: Path) -> None:
    assert [path.name for path in reference.glob(".env*")] == [".env.example"]


def test_a_later_run_adds_what_was_released_since(
    checkout: Path, reference: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "older"
    git(tmp_path, "clone", "-q", str(reference), "older")
    git(folder, "reset", "-q", "--hard", "v1.1.0")
    git(folder, "tag", "-d", "v1.10.0rc1", "v1.10.0")
    build(checkout, folder)
    assert git(folder, "rev-parse", "HEAD") == git(reference, "rev-parse", "HEAD")
    build(checkout, folder)
    assert git(folder, "rev-parse", "HEAD") == git(reference, "rev-parse", "HEAD")


def test_a_folder_of_somebody_elses_is_left_alone(
    checkout: Path, reference: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("ours\n")
    assert "is not a release made by" in attempt(checkout, tmp_path).stderr
    folder = tmp_path / "changed"
    git(tmp_path, "clone", "-q", str(reference), "changed")
    (folder / "README.md").write_text("ours\n")
    assert "uncommitted changes" in attempt(checkout, folder).stderr
    assert (folder / "README.md").read_text() == "ours\n"


def test_the_template_itself_is_left_alone(checkout: Path, tmp_path: Path) -> None:
    git(tmp_path, "clone", "-q", str(checkout), "template")
    for folder in (tmp_path / "template", tmp_path / "template/docs"):
        assert "is not a release made by" in attempt(checkout, folder).stderr
    assert git(tmp_path / "template", "status", "--porcelain") == ""


def test_an_older_release_that_somebody_looks_at_is_not_built_on(
    checkout: Path, reference: Path, tmp_path: Path
) -> None:
    git(tmp_path, "clone", "-q", "--branch=v1.0.0", str(reference), "older")
    assert "switch main" in attempt(checkout, tmp_path / "older").stderr


def test_a_release_that_can_not_be_made_leaves_all_as_it_was(
    checkout: Path, reference: Path, tmp_path: Path
) -> None:
    broken, folder = unreleased(checkout, tmp_path), tmp_path / "reference"
    (broken / "template/README.md.jinja").write_text("{{ nobody_asked }}\n")
    git(broken, "fetch", "-q", "--tags", str(checkout))
    release(broken, "v1.11.0")
    git(tmp_path, "clone", "-q", str(reference), "reference")
    done = attempt(broken, folder, "--source", ADDRESS)
    assert done.returncode == 1
    assert "The app of v1.11.0 could not be created" in done.stderr
    assert git(folder, "rev-parse", "HEAD") == git(reference, "rev-parse", "HEAD")
    assert git(folder, "status", "--porcelain") == ""


def unreleased(checkout: Path, tmp_path: Path) -> Path:
    """Return a clone of the checkout before its first release."""
    git(tmp_path, "clone", "-q", "--no-tags", str(checkout), "clone")
    (tmp_path / "clone/.venv").symlink_to(ROOT / ".venv")
    with (tmp_path / "clone/.git/info/exclude").open("a") as file:
        file.write("/.venv\n")
    return tmp_path / "clone"


@pytest.mark.parametrize("form", ["{}", "file://{}"])
def test_an_address_that_nobody_else_can_read_is_refused(
    checkout: Path, tmp_path: Path, form: str
) -> None:
    clone = unreleased(checkout, tmp_path)
    git(clone, "remote", "set-url", "origin", form.format(checkout))
    done = attempt(clone, tmp_path / "reference")
    assert done.returncode == 1
    assert "--source URL" in done.stderr
    assert not (tmp_path / "reference").exists()


@pytest.mark.parametrize(
    ("origin", "address"),
    [
        ("https://ci:token@git.example.com/bulwark.git", ADDRESS),
        ("https://git.example.com/bulwark", "git+https://git.example.com/bulwark"),
        ("git@git.example.com:bulwark", "git@git.example.com:bulwark"),
    ],
)
def test_the_address_is_one_that_copier_reads_and_no_secret(
    checkout: Path, tmp_path: Path, origin: str, address: str
) -> None:
    clone = unreleased(checkout, tmp_path)
    git(clone, "remote", "set-url", "origin", origin)
    build(clone, tmp_path / "reference")
    answers = (tmp_path / "reference/.copier-answers.yml").read_text()
    assert f"_src_path: {address}\n" in answers
    assert get_repo(address)


def test_before_the_first_release_it_is_what_is_committed(
    checkout: Path, tmp_path: Path
) -> None:
    clone = unreleased(checkout, tmp_path)
    (clone / "template/new.txt").write_text("Not committed\n")
    build(clone, tmp_path / "reference", "--source", ADDRESS)
    assert git(tmp_path / "reference", "tag") == ""
    assert (tmp_path / "reference/docs/detection.md").exists()
    assert not (tmp_path / "reference/new.txt").exists()


def test_it_is_the_same_whoever_builds_it(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone = unreleased(checkout, tmp_path)
    build(clone, tmp_path / "reference", "--source", ADDRESS)
    (tmp_path / "settings.yml").write_text("defaults: {project_name: Mine}\n")
    (tmp_path / "ignore").write_text("*.toml\n")
    (tmp_path / "gitconfig").write_text(
        f"[core]\nexcludesFile = {tmp_path}/ignore\n[safe]\ndirectory = *\n"
    )
    monkeypatch.setenv("COPIER_SETTINGS_PATH", str(tmp_path / "settings.yml"))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    build(clone, tmp_path / "again", "--source", ADDRESS)
    heads = [
        git(tmp_path / name, "rev-parse", "HEAD") for name in ("reference", "again")
    ]
    assert heads[0] == heads[1]


def test_a_clone_updates_itself(
    checkout: Path, reference: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "mine"
    git(tmp_path, "clone", "-q", "--branch=v1.0.0", str(reference), "mine")
    answers = folder / ".copier-answers.yml"
    answers.write_text(answers.read_text().replace(ADDRESS, str(checkout)))
    git(folder, "commit", "-qam", "The template is at another address here")
    update(folder)
    assert (folder / "bulwark/web/headers.py").read_text().endswith("# safer\n")
    assert not (folder / "docs/intrusion.md").exists()


def test_a_clone_runs_with_secrets_of_its_own(
    own_template: Path, tmp_path: Path
) -> None:
    (own_template / ".venv").symlink_to(ROOT / ".venv")
    with (own_template / ".git/info/exclude").open("a") as file:
        file.write("/.venv\n")
    build(own_template, tmp_path / "reference", "--source", ADDRESS)
    git(tmp_path, "clone", "-q", str(tmp_path / "reference"), "mine")
    folder = tmp_path / "mine"
    run("bin/setup", cwd=folder)
    assert (folder / ".env").stat().st_mode & 0o777 == 0o600
    # Where the packages come from an index of this machine, the lock names that.
    assert git(folder, "status", "--porcelain", ":!uv.lock") == ""
    run(
        *("bin/test", "-q", "-n0", "tests/app", "tests/bulwark/web/test_headers.py"),
        cwd=folder,
        env={key: os.environ[key] for key in os.environ if key != "PYTEST_ADDOPTS"},
    )
