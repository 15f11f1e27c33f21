"""bin/release: what is checked, what a release is, and that a failure is none."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT, commit, git, release

CHANGES = """\
# Changes

## Unreleased

### Security

- A header more,
  which matters.
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a small repository that could be released."""
    folder = tmp_path / "a checkout"
    (folder / "bin").mkdir(parents=True)
    shutil.copy(ROOT / "bin/release", folder / "bin")
    (folder / ".ci").mkdir()
    (folder / ".ci/run").write_text("#!/bin/sh\necho tested; git log -1 --format=%s\n")
    (folder / ".ci/run").chmod(0o755)
    (folder / "template").mkdir()
    (folder / "template/README.md.jinja").write_text("{{ project_name }}\n" * 9)
    (folder / "CHANGELOG.md").write_text(CHANGES)
    commit(folder)
    return folder


def run(checkout: Path, version: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [checkout / "bin/release", version], capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stderr
    return done


def state(checkout: Path) -> list[str]:
    """Return what a release would change."""
    questions = ("rev-parse HEAD", "tag", "status --porcelain", "stash list")
    return [git(checkout, *question.split()) for question in questions]


def refusal(checkout: Path, version: str) -> str:
    """Release in vain; return the reason."""
    before = state(checkout)
    done = run(checkout, version)
    assert done.returncode == 1, done.stdout
    assert state(checkout) == before
    return done.stderr


def put(path: str, text: str) -> Callable[[Path], None]:
    """Return a change of a checkout, committed."""

    def change(checkout: Path) -> None:
        (checkout / path).write_text(text)
        commit(checkout)

    return change


def test_a_release_is_a_commit_and_a_tag_that_describe_what_changes(
    checkout: Path,
) -> None:
    done = run(checkout, "1.2.0")
    assert done.returncode == 0, done.stderr
    assert "git push --follow-tags" in done.stdout
    assert git(checkout, "log", "-1", "--format=%s", "v1.2.0") == "Release v1.2.0\n"
    assert git(checkout, "describe", "--exact-match") == "v1.2.0\n"
    assert git(checkout, "cat-file", "-t", "v1.2.0") == "tag\n"
    output = git(checkout, "for-each-ref", "--format=%(contents)", "refs/tags/v1.2.0")
    assert "\n### Security\n\n- A header more,\n  which matters.\n" in output
    assert git(checkout, "status", "--porcelain") == ""


def test_what_is_released_has_a_date_and_the_next_one_is_empty(checkout: Path) -> None:
    run(checkout, "v1.2.0")
    text = (checkout / "CHANGELOG.md").read_text()
    day = git(checkout, "log", "-1", "--format=%as").strip()
    expected = f"## Unreleased\n\n## 1.2.0 ({day})\n\n### Security\n"
    assert expected in text
    assert "no entry under `## Unreleased`" in refusal(checkout, "1.3.0")


def test_what_the_ci_tests_is_the_commit_that_is_released(checkout: Path) -> None:
    put(".ci/run", "#!/bin/sh\ngit log -1 --format=%s; exit 3\n")(checkout)
    reason = refusal(checkout, "1.2.0")
    assert "CI failed, so nothing was released:\nRelease v1.2.0\n" in reason


def test_who_ends_it_meanwhile_has_changed_nothing(checkout: Path) -> None:
    put(".ci/run", "#!/bin/sh\nkill -INT $PPID; sleep 60\n")(checkout)
    before = state(checkout)
    done = run(checkout, "1.2.0")
    assert done.returncode == 1
    assert "Nothing was released." in done.stderr
    assert state(checkout) == before


def test_who_works_on_another_branch_meanwhile_is_left_there(checkout: Path) -> None:
    ci = f"#!/bin/sh\ngit -C '{checkout}' switch -q other\n"
    git(checkout, "branch", "other")
    put(".ci/run", ci)(checkout)
    before = git(checkout, "rev-parse", "other")
    assert run(checkout, "1.2.0").returncode == 0
    assert git(checkout, "branch", "--show-current") == "other\n"
    assert git(checkout, "rev-parse", "other") == before
    git(checkout, "switch", "-q", "-")
    assert git(checkout, "describe", "--exact-match") == "v1.2.0\n"


def test_who_releases_may_be_known_in_this_checkout_alone(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nobody = tmp_path / "gitconfig"
    nobody.write_text("[safe]\ndirectory = *\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(nobody))
    reason = refusal(checkout, "1.2.0")
    assert "git has no user.email to release with" in reason
    git(checkout, "config", "user.name", "Somebody")
    git(checkout, "config", "user.email", "somebody@example.com")
    assert run(checkout, "1.2.0").returncode == 0
    author = git(checkout, "log", "-1", "--format=%an <%ae>")
    assert author == "Somebody <somebody@example.com>\n"


@pytest.mark.parametrize("version", ["1.2", "one", "1.2.0.dev1", "1.2.0-final"])
def test_what_is_no_version_is_refused(checkout: Path, version: str) -> None:
    assert "is not a version. Use three numbers" in refusal(checkout, version)


@pytest.mark.parametrize("version", ["1.2.0", "1.1.9", "1.2.0rc1"])
def test_a_version_comes_after_the_last_one(checkout: Path, version: str) -> None:
    release(checkout, "v1.1.10")
    release(checkout, "v1.2.0")
    assert "does not come after v1.2.0" in refusal(checkout, version)


def test_a_candidate_comes_before_its_release(checkout: Path) -> None:
    release(checkout, "v1.2.0rc1")
    assert run(checkout, "1.2.0").returncode == 0


@pytest.mark.parametrize("file", ["CHANGELOG.md", "untracked"])
def test_uncommitted_changes_are_not_released(checkout: Path, file: str) -> None:
    with (checkout / file).open("a") as text:
        text.write("more\n")
    assert "commit or stash them" in refusal(checkout, "1.2.0")


def test_a_release_from_no_branch_is_refused(checkout: Path) -> None:
    git(checkout, "checkout", "-q", "--detach")
    assert "git switch main" in refusal(checkout, "1.2.0")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ("# Changes\n", "no entry"),
        ("# Changes\n\n## Unreleased\n\n### Fixed\n", "no entry"),
        (f"{CHANGES}\n### News\n\n- x\n", "show the heading `News`"),
        (f"{CHANGES}\nIn prose.\n", "begin with a hyphen: In prose."),
        (CHANGES.replace("### Security\n", "- x\n"), "show the heading `Unreleased`"),
    ],
)
def test_owners_can_read_what_changes(
    checkout: Path, changes: str, reason: str
) -> None:
    put("CHANGELOG.md", changes)(checkout)
    assert reason in refusal(checkout, "1.2.0")


def test_a_release_that_asks_for_something_has_a_new_first_number(
    checkout: Path,
) -> None:
    release(checkout, "v1.1.0")
    put("CHANGELOG.md", f"{CHANGES}\n### To do\n\n- Turn it.\n")(checkout)
    assert "needs a new major version" in refusal(checkout, "1.2.0")
    release(checkout, "v2.0.0rc1")
    assert run(checkout, "2.0.0").returncode == 0


def test_a_file_with_answers_keeps_its_name(checkout: Path) -> None:
    release(checkout, "v1.1.0")
    git(checkout, "mv", "template/README.md.jinja", "template/READ.md.jinja")
    commit(checkout)
    assert "template/README.md.jinja is now template/READ.md.jinja" in refusal(
        checkout, "1.2.0"
    )
