"""bin/update: one command for a release; if it fails, all is as it was."""

import os
import pty
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from copier import run_copy

from tests.conftest import RELEASE, ROOT, commit, git, release, run
from tests.support.place import FIX, NEWS, Place
from tests.support.quick_copier import IN_PROCESSES
from tests.support.servers import end_session, eventually

SLOW = """\
_migrations:
  - command: "touch '{started}' spoilt && rm -r docs && sleep 60"
"""


@pytest.fixture(scope="module")
def original(
    small_template: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("updates")
    clone = Path(shutil.copytree(small_template, folder / "template", symlinks=True))
    service = folder / "service"
    run_copy(
        str(clone), service, defaults=True, unsafe=True, quiet=True, vcs_ref=RELEASE
    )
    commit(service)
    with (clone / "template/bulwark/web/headers.py").open("a") as file:
        file.write(FIX)
    release(clone, NEWS)
    return clone, service


@pytest.fixture
def place(original: tuple[Path, Path], tmp_path: Path) -> Place:
    """Return a template and a service that a test may change."""
    return Place.copied(original, tmp_path)


@contextmanager
def begun(place: Place, terminal: int | None = None) -> Iterator[subprocess.Popen[str]]:
    """Begin an update that is in the middle of its work for a minute."""
    started = place.service.parent / "started"
    place.publish("v9999.2.0", "_migrations:\n", SLOW.format(started=started))
    control = [] if terminal is None else ["--ctty"]
    with subprocess.Popen(
        ["setsid", *control, place.service / "bin/update"],
        env=os.environ | IN_PROCESSES,
        stdin=terminal or subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            eventually(started.exists)
            yield process
        finally:
            end_session(process.pid)


def test_the_newest_release_arrives_and_is_described(place: Place) -> None:
    secrets = (place.service / ".env").read_bytes()
    done = place.update()
    assert done.returncode == 0, done.stderr
    assert f"# Bulwark {NEWS}\n" in done.stdout
    assert "bin/setup, bin/ci, git commit" in done.stderr
    assert place.has_news()
    assert (place.service / ".env").read_bytes() == secrets


def test_the_quick_copier_of_tests_updates_as_copier_does(place: Place) -> None:
    done = place.update()
    quick = done.stdout, place.state()
    git(place.service, "reset", "-q", "--hard")
    git(place.service, "clean", "-qfd")
    done = place.update(PYTHONPATH="")
    assert (done.stdout, place.state()) == quick


def test_a_service_that_is_current_is_reported(place: Place) -> None:
    place.update()
    commit(place.service)
    before = place.state()
    done = place.update()
    assert done.returncode == 0
    assert "newest release" in done.stderr
    assert place.state() == before


def test_a_conflict_has_an_exit_code(place: Place) -> None:
    with (place.service / "bulwark/web/headers.py").open("a") as file:
        file.write("# ours\n")
    commit(place.service)
    done = place.update()
    assert done.returncode == 1
    assert "`bulwark/web/headers.py`" in done.stdout


def test_another_answer_brings_what_it_stands_for(place: Place) -> None:
    place.update()
    commit(place.service)
    done = place.update("--data", "proxy=apache", "-d", "deploy=[systemd]")
    assert done.returncode == 0, done.stderr
    assert (place.service / "deploy/apache").is_dir()
    assert not (place.service / "deploy/nginx").exists()
    assert not (place.service / "compose.yaml").exists()


@pytest.mark.parametrize(
    "answer", ["proxy=caddy", "domain=no domain", "proxy", "prxy=apache"]
)
def test_an_answer_that_is_none_changes_nothing(place: Place, answer: str) -> None:
    assert answer.partition("=")[0] in place.refusal("--data", answer)


@pytest.mark.parametrize("file", ["app/views.py", "untracked.py"])
def test_unsaved_work_is_named_and_refused(place: Place, file: str) -> None:
    with (place.service / file).open("a") as text:
        text.write("# unsaved\n")
    reason = place.refusal()
    assert file in reason
    assert "Commit or stash them" in reason


def test_work_that_git_hides_is_refused_as_well(place: Place) -> None:
    git(place.service, "config", "status.showUntrackedFiles", "no")
    (place.service / "notes.txt").write_text("mine\n")
    assert "notes.txt" in place.refusal()


@pytest.mark.parametrize("how", ["--assume-unchanged", "--skip-worktree"])
def test_files_that_git_does_not_look_at_are_named(place: Place, how: str) -> None:
    git(place.service, "update-index", how, "compose.yaml")
    with (place.service / "compose.yaml").open("a") as file:
        file.write("# ours\n")
    assert "\ncompose.yaml\n" in place.refusal()


def test_an_unfinished_merge_is_left_to_be_finished(place: Place) -> None:
    git(place.service, "switch", "-qc", "other")
    git(place.service, "commit", "-q", "--allow-empty", "-m", "Other")
    git(place.service, "switch", "-q", "-")
    git(place.service, "merge", "-q", "--no-ff", "--no-commit", "other")
    assert "(MERGE_HEAD)" in place.refusal()
    assert (place.service / ".git/MERGE_HEAD").exists()


def test_an_unfinished_rebase_is_left_to_be_finished(place: Place) -> None:
    git(place.service, "commit", "-q", "--allow-empty", "-m", "Other")
    git(place.service, "-c", "sequence.editor=sed -i 1ibreak", "rebase", "-qi", "HEAD~")
    assert "(rebase-merge)" in place.refusal()


def test_without_git_the_package_to_install_is_named(
    place: Place, tmp_path: Path
) -> None:
    commands = tmp_path / "bin"
    commands.mkdir()
    for name in ("env", "python3"):
        (commands / name).symlink_to(str(shutil.which(name)))
    assert "apt-get install git" in place.refusal(PATH=str(commands))


def test_a_machine_without_uv_gets_one(place: Place) -> None:
    uv = place.service / ".uv/bin/uv"
    assert place.update(UV=str(uv)).returncode == 0
    assert uv.exists()
    assert place.has_news()


def test_uv_has_the_version_that_a_release_names(tmp_path: Path) -> None:
    """What an older release brought gives way, or stays without a network."""
    command = tmp_path / "bin/uv"
    command.parent.mkdir()
    for name in ("uv", "common.sh", "installers.sh"):
        shutil.copy(ROOT / "template/bin" / name, command.with_name(name))
    named = re.findall(r"^version=(.+)$", command.read_text(), re.MULTILINE)
    brought = {"UV": str(tmp_path / ".uv/bin/uv")}

    def version(**environment: str) -> str:
        output = run(command, "--version", cwd=tmp_path, env=os.environ | environment)
        return output.split()[1]

    run("python3", "-m", "venv", ".uv", cwd=tmp_path)
    run(".uv/bin/pip", "install", "--quiet", "uv==0.13.8", cwd=tmp_path)
    assert version(**brought, PIP_NO_INDEX="1") == "0.13.8"
    assert [version(**brought)] == named
    dockerfile = (ROOT / "template/deploy/docker/Dockerfile").read_text()
    assert set(re.findall(r"\buv==([\d.]+)", dockerfile)) == set(named)


def test_a_machine_that_gets_no_uv_sees_why(place: Place) -> None:
    done = place.update(UV=str(place.service / ".uv/bin/uv"), PIP_NO_INDEX="1")
    assert done.returncode == 2
    assert "uv could not be installed. Check the network." in done.stderr
    assert "template has moved" not in done.stderr
    assert not place.has_news()


def test_the_reason_of_git_for_an_unreadable_repository_is_shown(
    place: Place,
) -> None:
    (place.service / ".git/HEAD").write_text("damaged\n")
    done = place.update()
    assert done.returncode == 2
    assert "fatal: " in done.stderr


def test_a_service_that_its_repository_ignores_is_not_in_git(place: Place) -> None:
    project = place.service.parent / "project"
    project.mkdir()
    shutil.rmtree(place.service / ".git")
    place.service = place.service.rename(project / "shop")
    (project / ".gitignore").write_text("/shop\n")
    commit(project)
    assert "is not in git" in place.refusal()


def test_a_service_outside_git_sees_how_to_add_it(place: Place) -> None:
    shutil.rmtree(place.service / ".git")
    done = place.update()
    assert done.returncode == 2
    assert "git init && git add" in done.stderr


@pytest.mark.parametrize("name", ["_commit", "_src_path", None])
def test_lost_answers_are_missed(place: Place, name: str | None) -> None:
    answers = place.service / ".copier-answers.yml"
    if name:
        answers.write_text(answers.read_text().replace(f"{name}: ", "other: "))
    else:
        answers.unlink()
    commit(place.service)
    assert "Restore it from git" in place.refusal()


# Two bytes that say UTF-16 may lead to a text that is YAML, only not of answers.
@pytest.mark.parametrize("content", [b"\xff\xfe", b"\xff\xfe\x00", b"<<<<<<< HEAD\n"])
def test_answers_that_are_no_text_or_no_yaml_are_named(
    place: Place, content: bytes
) -> None:
    answers = place.service / ".copier-answers.yml"
    answers.write_bytes(content + answers.read_bytes())
    commit(place.service)
    assert ".copier-answers.yml" in place.refusal()


def test_a_template_that_does_not_answer_changes_nothing(place: Place) -> None:
    place.move("http://localhost:9/bulwark.git")
    reason = place.refusal()
    assert "localhost:9" in reason
    assert "_src_path" in reason


def test_a_template_that_has_moved_is_found_at_its_new_address(place: Place) -> None:
    place.template = place.template.rename(place.template.with_name("elsewhere"))
    assert "If the template has moved" in place.refusal()
    place.move(str(place.template))
    assert place.update().returncode == 0
    assert place.has_news()


def test_a_release_for_a_newer_copier_is_reported(place: Place) -> None:
    least = '_min_copier_version: "9.19.0"'
    place.publish("v9999.2.0", least, least.replace("9.19.0", "99"))
    assert "99" in place.refusal()
    assert place.update("--to", NEWS).returncode == 0


def test_an_answer_that_somebody_spoilt_is_named(place: Place) -> None:
    answers = place.service / ".copier-answers.yml"
    answers.write_text(answers.read_text().replace(": sqlite", ": oracle"))
    commit(place.service)
    assert "'database'" in place.refusal()


def test_a_migration_that_fails_is_taken_back(place: Place) -> None:
    broken = '_migrations:\n  - command: "rm -r docs; touch spoilt; exit 3"\n'
    place.publish("v9999.2.0", "_migrations:\n", broken)
    assert "nothing was changed" in place.refusal()


def test_secrets_that_a_failed_update_added_are_taken_back(place: Place) -> None:
    """The older release would not start with settings that it does not know."""
    broken = '_migrations:\n  - command: "echo APP_NEW=1 >>.env; exit 3"\n'
    place.publish("v9999.2.0", "_migrations:\n", broken)
    assert "nothing was changed" in place.refusal()
    (place.service / ".env").unlink()
    assert "nothing was changed" in place.refusal()


def test_a_failed_update_takes_nothing_that_it_did_not_make(place: Place) -> None:
    """Git knows no empty folders, and cleaning up takes them along."""
    broken = '_migrations:\n  - command: "mkdir new; touch new/file; exit 3"\n'
    place.publish("v9999.2.0", "_migrations:\n", broken)
    (place.service / "uploads").mkdir()
    assert "nothing was changed" in place.refusal()


def test_who_ends_an_update_has_changed_nothing(place: Place) -> None:
    before = place.state()
    with begun(place) as process:
        process.terminate()
        _, output = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "Nothing was changed." in output
    assert place.state() == before


def test_ctrl_c_at_a_terminal_changes_nothing_however_often(place: Place) -> None:
    before = place.state()
    keys, terminal = pty.openpty()
    with begun(place, terminal) as process:
        for _ in range(3):
            os.write(keys, b"\x03")
        _, output = process.communicate(timeout=60)
    os.close(keys)
    os.close(terminal)
    assert process.returncode == 2
    assert output == "Interrupted. Nothing was changed.\n"
    assert place.state() == before


def test_a_second_update_waits_for_the_first_even_if_only_its_copier_lives(
    place: Place,
) -> None:
    with begun(place) as process:
        assert "is running" in place.update().stderr
        process.kill()
        process.wait()
        assert "is running" in place.update().stderr
        end_session(process.pid)
    assert "stashed" in place.update("--to", NEWS).stderr


def test_what_a_killed_update_left_is_put_aside_by_the_next(place: Place) -> None:
    secrets = (place.service / ".env").read_bytes()
    with begun(place) as process:
        end_session(process.pid)
    assert not (place.service / "docs").exists()
    (place.service / "app/views.py").write_text("# worked on since\n")
    done = place.update("--to", NEWS)
    assert done.returncode == 0, done.stderr
    assert "are stashed: git stash show" in done.stderr
    assert place.has_news()
    assert not (place.service / "spoilt").exists()
    assert "worked on since" in git(place.service, "stash", "show", "-p")
    assert (place.service / ".env").read_bytes() == secrets
    assert "stashed" not in place.update("--to", NEWS).stderr


def test_a_shallow_clone_is_updated_as_well(place: Place) -> None:
    clone = place.service.with_name("shallow")
    git(
        place.service, "clone", "-q", "--depth=1", f"file://{place.service}", str(clone)
    )
    place.service = clone
    assert place.update().returncode == 0
    assert place.has_news()


def test_a_service_in_a_folder_of_a_repository_is_updated_alone(place: Place) -> None:
    project = place.join_a_project()
    reason = place.refusal("--to", "v1.2.3")
    assert "nothing was changed" in reason
    assert place.update().returncode == 0
    assert place.has_news()
    assert git(project, "status", "--porcelain", "other") == ""
    (project / "other/file").write_text("unsaved\n")
    assert "other/file" in place.refusal()


def test_who_works_in_another_folder_loses_nothing_when_an_update_fails(
    place: Place,
) -> None:
    project = place.join_a_project()
    broken = '_migrations:\n  - command: "echo meanwhile >../other/file; exit 3"\n'
    place.publish("v9999.2.0", "_migrations:\n", broken)
    assert place.update().returncode == 2
    assert (project / "other/file").read_text() == "meanwhile\n"
    assert git(place.service, "status", "--porcelain", ".") == ""


def test_copier_needs_no_network_once_it_is_cached(place: Place) -> None:
    isolated = ["unshare", "--net", *(["--map-root-user"] if os.geteuid() else [])]
    if subprocess.call([*isolated, "true"], stderr=subprocess.DEVNULL):
        pytest.skip("needs a kernel that lets this user make network namespaces")
    assert place.update().returncode == 0
    git(place.service, "reset", "-q", "--hard")
    run(*isolated, place.service / "bin/update", cwd=place.service)
    assert place.has_news()
    empty = {"UV_CACHE_DIR": str(place.service.parent / "cache")}
    done = subprocess.run(
        [*isolated, place.service / "bin/copier", "--version"],
        env=os.environ | empty,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Connect to the network once.\n" in done.stderr


def test_without_trust_copier_changes_nothing(place: Place) -> None:
    before = place.state()
    done = subprocess.run(
        [sys.executable, "-m", "copier", "update", "--defaults"],
        cwd=place.service,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 4
    assert "--trust" in done.stderr
    assert place.state() == before
