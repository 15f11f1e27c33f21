"""What a service's owner reads after `copier update`, and what the update mended."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from copier import run_copy

from tests.conftest import ROOT, commit, git, release
from tests.support.quick_copier import IN_PROCESSES

HEADINGS = ["To do", "Security", "Removed", "Changed", "Fixed", "Added"]


class Update(NamedTuple):
    service: Path
    report: str

    def section(self, heading: str) -> str:
        """Return what is under a heading of the report."""
        return self.report.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]

    def read(self, path: str) -> str:
        return (self.service / path).read_text()


def edit(folder: Path, path: str, change: Callable[[str], str]) -> None:
    text = (folder / path).read_text()
    assert change(text) != text
    (folder / path).write_text(change(text))


def at_the_end(line: str) -> Callable[[str], str]:
    return lambda text: f"{text}\n{line}\n"


def in_the_first_line(mark: str) -> Callable[[str], str]:
    return lambda text: text.replace('"""', f'"""{mark} ', 1)


def update(service: Path, *options: str) -> Update:
    done = subprocess.run(
        [sys.executable, "-m", "copier", "update", "--trust", "--defaults", *options],
        cwd=service,
        env=os.environ | IN_PROCESSES,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return Update(service, done.stdout)


def make_service(template: Path, folder: Path, **answers: object) -> Path:
    run_copy(str(template), folder, answers, defaults=True, unsafe=True, quiet=True)
    return folder


@pytest.fixture(scope="module")
def updated(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Update:
    """Return a service of a monorepo, after a release that touches what it changed."""
    folder = tmp_path_factory.mktemp("report")
    git(folder, "clone", "-q", str(template), "template")
    clone = folder / "template"
    git(clone, "tag", "v9999.0.0", "--force")
    service = make_service(clone, folder / "project/shop", deploy=["systemd"])

    edit(service, "bulwark/web/headers.py", in_the_first_line("Ours"))
    edit(service, "bulwark/web/rate_limits.py", at_the_end("OURS = 1"))
    edit(service, "bulwark/mail/__init__.py", in_the_first_line("Ours"))
    edit(service, "bulwark/web/proxy.py", at_the_end("OURS = 1"))
    commit(folder / "project")
    git(service, "mv", "deploy/nginx/tls.conf", "deploy/nginx/our-tls.conf")
    git(service, "rm", "-q", "docs/intrusion.md", "bulwark/web/access_matrix.py")
    commit(folder / "project")

    base = clone / "template"
    edit(base, "bulwark/web/headers.py", in_the_first_line("Theirs"))
    edit(base, "bulwark/web/rate_limits.py", in_the_first_line("Theirs"))
    edit(base, "bulwark/mail/__init__.py", in_the_first_line("Theirs"))
    edit(base, "deploy/nginx/tls.conf", at_the_end("# safer"))
    edit(base, "docs/intrusion.md", at_the_end("Better."))
    edit(base, "compose.yaml.jinja", at_the_end("# not of this service"))
    git(base, "mv", "bulwark/web/rate_limits.py", "bulwark/rates.py")
    git(base, "mv", "bulwark/mail/__init__.py", "bulwark/post.py")
    git(base, "mv", "bulwark/web/access_matrix.py", "bulwark/routes.py")
    git(base, "rm", "-q", "bulwark/web/proxy.py", "bulwark/ops/health.py")
    news = "".join(f"### {h}\n\n- {h} of\n  this release.\n\n" for h in HEADINGS[::-1])
    edit(
        clone, "CHANGELOG.md", lambda t: t.replace("## ", f"## 9999.1\n\n{news}## ", 1)
    )
    release(clone, "v9999.1.0")
    return update(service)


def test_the_report_names_the_release(updated: Update) -> None:
    assert "\n# Bulwark v9999.1.0\n" in f"\n{updated.report}"


def test_the_news_come_once_and_what_matters_most_comes_first(updated: Update) -> None:
    found = [updated.report.index(f"\n## {heading}\n") for heading in HEADINGS]
    assert found == sorted(found)
    for heading in HEADINGS:
        assert updated.section(heading).strip() == f"- {heading} of\n  this release."


def test_an_edit_in_a_renamed_file_goes_with_it(updated: Update) -> None:
    assert not (updated.service / "bulwark/web/rate_limits.py").exists()
    assert updated.read("bulwark/rates.py").startswith('"""Theirs ')
    assert updated.read("bulwark/rates.py").endswith("\nOURS = 1\n")
    assert "rates.py" not in updated.report


def test_an_edit_of_the_same_lines_in_a_renamed_file_is_a_conflict(
    updated: Update,
) -> None:
    merged = updated.read("bulwark/post.py")
    assert '<<<<<<< before updating\n"""Ours ' in merged
    assert '=======\n"""Theirs ' in merged
    assert "`bulwark/post.py`" in updated.section("Conflicts")


def test_each_conflict_is_named_with_the_place_for_what_the_team_wanted(
    updated: Update,
) -> None:
    waiting = git(updated.service, "diff", "--name-only", "--diff-filter=U").split()
    assert waiting == ["shop/bulwark/post.py", "shop/bulwark/web/headers.py"]
    output = updated.section("Conflicts")
    assert (
        "- `bulwark/web/headers.py`: you and the release changed the same lines."
        in output
    )
    assert "Put your change in `app/`" in output
    # All three sides are in the index, as after a merge.
    sides = git(updated.service, "ls-files", "--unmerged").splitlines()
    assert [side.split()[2] for side in sides] == ["1", "2", "3"] * 2


def test_a_fix_of_a_file_that_the_team_moved_or_deleted_is_shown(
    updated: Update,
) -> None:
    output = updated.section("Not here")
    moved = git(updated.service, "log", "-1", "--format=%h").strip()
    assert f"`deploy/nginx/tls.conf` changed, but commit {moved} moved it" in output
    assert "to `deploy/nginx/our-tls.conf`" in output
    assert "  +# safer\n" in output
    assert f"`docs/intrusion.md` changed, but commit {moved} deleted it" in output
    assert "  +Better.\n" in output
    assert "`bulwark/routes.py` is new here: the release renamed" in output


def test_a_file_that_goes_is_shown_if_the_team_had_edited_it(updated: Update) -> None:
    output = updated.section("Not here")
    assert "`bulwark/web/proxy.py` was removed" in output
    assert "health.py" not in output
    assert not (updated.service / "bulwark/ops/health.py").exists()
    had = git(updated.service, "show", "HEAD:./bulwark/web/proxy.py")
    assert had.endswith("\nOURS = 1\n")


def test_files_that_an_answer_leaves_out_are_not_missed(updated: Update) -> None:
    assert "compose.yaml" not in updated.report


def test_another_answer_alone_brings_no_news(
    own_template: Path, tmp_path: Path
) -> None:
    service = make_service(own_template, tmp_path / "service")
    commit(service)
    output = update(service, "-d", "ci=none").report
    assert output.partition("# Bulwark ")[2].strip() == "v9999.0.0"


def test_every_entry_of_the_changelog_stands_under_a_heading_that_is_shown() -> None:
    heading = ""
    for line in (ROOT / "CHANGELOG.md").read_text().splitlines():
        if line.startswith("#"):
            heading = line
        if line.startswith("- "):
            assert heading.removeprefix("### ") in HEADINGS, line
