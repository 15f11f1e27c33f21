"""bin/update where settings of git, hooks, links or lost releases are in its way."""

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from copier import run_copy

from tests.conftest import RELEASE, SETTINGS, commit, git, release, run
from tests.support.place import FIX, NEWS, Place
from tests.template.edits import append, write

# Without most of the files an update takes a third of the time.
KEPT = (
    *(".github", "bin", "bulwark"),
    *("deploy/nginx", "docs/asvs.md", "docs/events.md", "docs/extend.md"),
)
ATTRIBUTES = ".gitattributes"
OWN_ATTRIBUTES = "*.bat text eol=crlf\n"
SCRIPT = "#!/bin/sh\necho new\n"
HOOKS = (
    *("pre-commit", "prepare-commit-msg", "commit-msg", "post-commit"),
    *("post-checkout", "post-index-change", "reference-transaction"),
)
# What people set for all of their repositories, or machines for all people.
ANNOYING = """\
[core]
hooksPath = {folder}/hooks
whitespace = trailing-space,tab-in-indent
[init]
templateDir = {folder}
[apply]
whitespace = error-all
[color]
ui = always
[commit]
gpgSign = true
[diff]
external = false
noprefix = true
[log]
showSignature = true
[status]
showUntrackedFiles = no
"""
HIDING = "*.md\nnewer\n.idea/\n"


@pytest.fixture(scope="module")
def original(
    small_template: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """Return a template of few files, and a service without attributes of git."""
    folder = tmp_path_factory.mktemp("git")
    clone = Path(shutil.copytree(small_template, folder / "template", symlinks=True))
    base = clone / "template"
    for name in git(base, "ls-files").splitlines():
        if "/" in name and not name.startswith(KEPT):
            (base / name).unlink()
    attributes = [path.read_text() for path in clone.rglob(ATTRIBUTES)]
    git(clone, "rm", "-q", "--ignore-unmatch", f":(glob)**/{ATTRIBUTES}")
    commit(clone)
    git(clone, "tag", "--force", RELEASE)
    service = folder / "service"
    run_copy(
        str(clone), service, defaults=True, unsafe=True, quiet=True, vcs_ref=RELEASE
    )
    commit(service)
    if attributes:
        git(clone, "checkout", "HEAD~", "--", f":(glob)**/{ATTRIBUTES}")
    for name in (
        "bulwark/web/headers.py",
        "bulwark/web/rate_limits.py",
        "gunicorn.conf.py",
    ):
        append(base / name, FIX)
    for name in (".github/workflows/ci.yml", "deploy/nginx/tls.conf", "docs/extend.md"):
        append(base / name, FIX)
    write(base / "docs/newer.md", "# New\n")
    write(base / "bin/newer", SCRIPT)
    (base / "bin/newer").chmod(0o755)
    (base / "bin/installers.sh").chmod(0o755)
    (base / "docs/asvs.md").unlink()
    (base / "docs/events.md").rename(base / "docs/signals.md")
    (base / "deploy/nginx/errors.conf").rename(base / "deploy/nginx/faults.conf")
    release(clone, NEWS)
    return clone, service


@pytest.fixture
def place(original: tuple[Path, Path], tmp_path: Path) -> Place:
    return Place.copied(original, tmp_path)


def settings(folder: Path, text: str) -> dict[str, str]:
    """Return an environment in which git has these settings for all repositories."""
    file = folder / "gitconfig"
    file.write_text(Path(SETTINGS.name, "gitconfig").read_text() + text)
    return {"GIT_CONFIG_GLOBAL": str(file)}


def fail_hooks(folder: Path) -> None:
    """Have each hook fail, as those of git-lfs where git-lfs is missing."""
    folder.mkdir(exist_ok=True)
    for name in HOOKS:
        hook = folder / name
        hook.write_text(f"#!/bin/sh\necho {name} failed >&2\nexit 2\n")
        hook.chmod(0o755)


def link(service: Path, name: str, to: str) -> None:
    """Move a file or folder of the template, and leave a link to it in its place."""
    path = service / name
    target = path.parent / to
    target.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        path.rename(target)
    path.symlink_to(to)


def links_and_files(service: Path, *folders: str) -> dict[str, bytes | Path]:
    """Return where links lead and what files hold in some folders."""
    return {
        str(path.relative_to(service)): path.readlink()
        if path.is_symlink()
        else path.read_bytes()
        for folder in folders
        for path in (service / folder).rglob("*")
        if path.is_symlink() or path.is_file()
    }


def mode(service: Path, name: str) -> str:
    """Return the mode of a file in git's index."""
    return git(service, "ls-files", "--stage", "--", name).partition(" ")[0]


def section(report: str, heading: str) -> str:
    return report.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def test_settings_and_hooks_of_a_machine_change_nothing(
    place: Place, tmp_path: Path
) -> None:
    """The update is the same as where git has none."""
    append(place.service / "bulwark/web/rate_limits.py", "# ours\n")
    text = (place.service / "gunicorn.conf.py").read_text()
    (place.service / "gunicorn.conf.py").write_text(f"# ours \n{text}")
    (place.service / ATTRIBUTES).write_text(OWN_ATTRIBUTES)
    git(place.service, "mv", "docs/extend.md", "docs/ours.md")
    commit(place.service)
    (tmp_path / "quiet").mkdir()
    quiet = Place.copied((place.template, place.service), tmp_path / "quiet")
    plain = quiet.update()
    assert plain.returncode == 1, plain.stderr
    assert "`docs/extend.md` changed" in plain.stdout

    fail_hooks(tmp_path / "hooks")
    fail_hooks(place.service / ".git/hooks")
    annoyed = place.update(**settings(tmp_path, ANNOYING.format(folder=tmp_path)))
    assert (annoyed.returncode, annoyed.stdout) == (1, plain.stdout), annoyed.stderr
    shutil.rmtree(place.service / ".git/hooks")
    states = [
        (
            git(here.service, "diff", "HEAD", "--", ":!.copier-answers.yml"),
            git(here.service, "status", "--porcelain"),
        )
        for here in (place, quiet)
    ]
    assert states[0] == states[1]
    assert (place.service / ATTRIBUTES).read_text() == OWN_ATTRIBUTES


def test_new_files_and_run_bits_are_committed_whatever_git_does_not_see(
    place: Place, tmp_path: Path
) -> None:
    """The service is a folder of a repository on a disk without run bits."""
    extend = place.service / "docs/extend.md"
    extend.write_text(f"Ours.\n\n{extend.read_text()}")
    project = place.join_a_project()
    git(project, "config", "core.fileMode", "false")
    service = place.service
    git(service, "update-index", "--chmod=-x", "bin/ci")
    git(service, "commit", "-qm", "Nobody runs this")
    write(service / ".idea/settings", "mine\n")

    (tmp_path / "ignore").write_text(HIDING)
    hiding = settings(tmp_path, f"[core]\nexcludesFile = {tmp_path}/ignore\n")
    done = place.update(**hiding)
    assert done.returncode == 0, done.stderr
    extend = service / "docs/extend.md"
    assert extend.read_text().startswith("Ours.\n")
    assert extend.read_text().endswith(FIX)
    named = section(done.stdout, "Ignored by git").splitlines()
    assert named[-3:] == [
        *("- `bin/newer`", "- `docs/newer.md`", "- `docs/signals.md`")
    ]
    environment = os.environ | hiding
    run("git", "add", "--all", cwd=service, env=environment)
    run("git", "commit", "-qm", "Update", cwd=service, env=environment)
    assert mode(service, "bin/newer") == "100755"
    assert mode(service, "bin/installers.sh") == "100755"
    assert mode(service, "bin/ci") == "100644"
    assert mode(service, "docs/newer.md") == "100644"
    assert git(project, "status", "--porcelain") == "?? shop/.idea/\n"


def test_a_failure_leaves_nothing_where_hooks_fail_and_files_are_ignored(
    place: Place, tmp_path: Path
) -> None:
    (tmp_path / "ignore").write_text(HIDING)
    hiding = settings(tmp_path, f"[core]\nexcludesFile = {tmp_path}/ignore\n")
    write(place.service / ".idea/settings", "mine\n")
    fail_hooks(place.service / ".git/hooks")
    (place.service / ".git/hooks/reference-transaction").unlink()  # of stash
    broken = '_migrations:\n  - command: "rm bin/ci; exit 3"\n'
    place.publish("v9999.2.0", "_migrations:\n", broken)
    assert "nothing was changed" in place.refusal(**hiding)
    assert not (place.service / "bin/newer").exists()


def test_no_change_is_lost_where_a_link_or_a_repository_took_a_place(
    place: Place,
) -> None:
    service = place.service
    append(service / "bulwark/web/rate_limits.py", "# ours\n")
    link(service, "gunicorn.conf.py", "infra/gunicorn.py")
    link(service, "deploy/nginx", "../infra/nginx")
    link(service, "docs/newer.md", "../README.md")
    link(service, "docs/asvs.md", "../infra/asvs.md")
    link(service, "docs/events.md", "../infra/events.md")
    git(service, "rm", "-rq", "--cached", ".github")
    commit(service / ".github")
    commit(service)
    before = links_and_files(service, "infra", "deploy", "docs", ".github")
    done = place.update()
    assert done.returncode == 1, done.stderr
    assert place.has_news()
    # What was edited elsewhere is merged as ever.
    unmerged = git(service, "diff", "--name-only", "--diff-filter=U")
    assert unmerged == "bulwark/web/rate_limits.py\n"
    now = links_and_files(service, "infra", "deploy", "docs", ".github")
    del before["docs/extend.md"], now["docs/extend.md"], now["docs/signals.md"]
    del now["deploy/.gitattributes"]
    assert now == before
    missed = section(done.stdout, "Not here")
    for name, what in (
        (".github/workflows/ci.yml", "`.github` is another repository here"),
        ("deploy/nginx/faults.conf", "`deploy/nginx` is a link to `../infra/nginx`"),
        ("deploy/nginx/tls.conf", "`deploy/nginx` is a link to `../infra/nginx`"),
        ("docs/asvs.md", "`docs/asvs.md` is a link to"),
        ("docs/newer.md", "`docs/newer.md` is a link to"),
        ("docs/signals.md", "the release renamed `docs/events.md`"),
        ("gunicorn.conf.py", "`gunicorn.conf.py` is a link to `infra/gunicorn.py`"),
    ):
        (line,) = (
            line for line in missed.splitlines() if line.startswith(f"- `{name}`")
        )
        assert what in line
    assert f"+{FIX}" in missed


@pytest.mark.parametrize("address", ["{}", "file://{}/.git"])
def test_who_follows_the_advice_gets_past_a_release_that_was_withdrawn(
    place: Place, address: str
) -> None:
    """What that release brought stays; what later ones have of it does not conflict."""
    answers = place.service / ".copier-answers.yml"
    answers.write_text(answers.read_text().replace(RELEASE, "v9999.0.7"))
    append(place.service / "bulwark/web/headers.py", FIX)
    append(place.service / "gunicorn.conf.py", "# what no later release has\n")
    write(place.service / "docs/newer.md", "# New\n")
    place.move(address.format(place.template))
    for older in ("v9999.0.0rc1", "v9998.12.0"):
        git(place.template, "tag", older, RELEASE)
    reason = place.refusal()
    assert "v9999.0.7, which the template no longer has" in reason
    assert "has moved" not in reason
    (advised,) = (line for line in reason.splitlines() if "_commit: " in line)
    assert advised.strip() == f"_commit: {RELEASE}"
    if address != "{}":
        return
    answers.write_text(answers.read_text().replace("v9999.0.7", RELEASE))
    commit(place.service)
    place.update()
    assert (place.service / "bulwark/web/headers.py").read_text().count(FIX) == 1
    assert (
        "# what no later release has"
        in (place.service / "gunicorn.conf.py").read_text()
    )
    assert (
        git(place.service, "diff", "--name-only", "--diff-filter=U")
        == "gunicorn.conf.py\n"
    )


def test_lines_end_as_scripts_need_it_where_git_would_end_them_as_windows_does(
    place: Place, tmp_path: Path
) -> None:
    """A service that had no attributes gets them, and each clone of it works."""
    windows = settings(tmp_path, "[core]\nautocrlf = true\nsafecrlf = true\n")
    done = place.update(**windows)
    assert done.returncode == 0, done.stderr
    commit(place.service)
    clone = tmp_path / "clone"
    environment = os.environ | windows
    run("git", "clone", "-q", place.service, clone, cwd=tmp_path, env=environment)
    for folder in (place.service, clone):
        listed = git(folder, "ls-files", "--eol").splitlines()
        ends = {tuple(line.split()[:2]) for line in listed}
        assert ends - {("i/-text", "w/-text"), ("i/none", "w/none")} == {
            ("i/lf", "w/lf")
        }
    assert run("bin/newer", cwd=clone) == "new\n"
    assert (clone / "bin/newer").stat().st_mode & stat.S_IXUSR


def test_the_checks_name_scripts_that_git_took_for_plain_files(place: Place) -> None:
    """As from a disk without run bits, where the service's first commit was made."""
    service = place.service
    git(service, "config", "core.fileMode", "false")
    git(service, "rm", "-rq", "--cached", ".")
    git(service, "add", "--all")
    assert mode(service, "bin/setup") == "100644"

    def check() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [service / "bin/ci"], capture_output=True, text=True, check=False
        )

    (advice,) = (line for line in check().stderr.splitlines() if "git " in line)
    run(*advice.split(), cwd=service)
    assert mode(service, "bin/setup") == "100755"
    assert mode(service, "deploy/nginx/apply") == "100755"
    assert mode(service, "bin/installers.sh") == "100644"
    assert "==> Format" in check().stdout
