"""bin/drift: what of the template's files a service has edited, moved or deleted."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from copier import run_copy

from tests.conftest import RELEASE, commit, git, move, release
from tests.support.quick_copier import IN_PROCESSES


@pytest.fixture(scope="module")
def fresh(small_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a service that nobody has changed."""
    folder = tmp_path_factory.mktemp("drift") / "service"
    run_copy(str(small_template), folder, defaults=True, unsafe=True, quiet=True)
    commit(folder)
    return folder


@pytest.fixture
def service(fresh: Path, tmp_path: Path) -> Path:
    """Return a service that a test may change."""
    return Path(shutil.copytree(fresh, tmp_path / "a service", symlinks=True))


def drift(service: Path, *options: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [service / "bin/drift", *options],
        env=os.environ | IN_PROCESSES,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done


def drifts(service: Path) -> dict[str, dict[str, Any]]:
    """Return its JSON output, by path."""
    done = drift(service, "--json")
    assert done.returncode == 0, done.stderr
    return {file["path"]: file for file in json.loads(done.stdout)["files"]}


def change(service: Path, path: str, old: str, new: str) -> None:
    text = (service / path).read_text()
    assert old in text
    (service / path).write_text(text.replace(old, new, 1))


def test_a_service_that_nobody_changed_has_none(
    service: Path, small_template: Path
) -> None:
    done = drift(service, "--check")
    assert done.returncode == 0, done.stderr
    assert f"as in {RELEASE}" in done.stdout
    output = json.loads(drift(service, "--json").stdout)
    assert output == {"template": str(small_template), "version": RELEASE, "files": []}


def test_edited_moved_and_deleted_files_are_listed_with_their_diffs(
    service: Path,
) -> None:
    change(service, "bulwark/web/headers.py", "import re\n", "import re  # ours\n")
    (service / "bin/dev").chmod(0o644)
    git(service, "mv", "deploy/nginx/tls.conf", "app/nginx/tls.conf")
    git(service, "rm", "-q", "docs/intrusion.md")
    found = drifts(service)
    assert {(path, file["change"], file["to"]) for path, file in found.items()} == {
        ("bin/dev", "edited", None),
        ("bulwark/web/headers.py", "edited", None),
        ("deploy/nginx/tls.conf", "moved", "app/nginx/tls.conf"),
        ("docs/intrusion.md", "deleted", None),
    }
    assert "+import re  # ours\n" in found["bulwark/web/headers.py"]["diff"]
    assert "new mode 100644" in found["bin/dev"]["diff"]
    output = drift(service).stdout
    assert "moved    deploy/nginx/tls.conf -> app/nginx/tls.conf\n" in output
    assert "+import re  # ours\n" in output


def test_work_that_is_not_committed_counts(service: Path) -> None:
    (service / "SECURITY.md").unlink()
    (service / "security.md").write_text("Ours\n")
    assert drifts(service).keys() == {"SECURITY.md"}


def test_the_teams_half_is_no_drift(service: Path) -> None:
    change(service, "app/views.py", "import", "import os, ")
    (service / "app/static/app.css").unlink()
    shutil.rmtree(service / "tests/app")
    (service / "compose.override.yaml").write_text("services: {}\n")
    (service / "app/bild ü.png").write_bytes(b"\x89PNG\0")
    change(
        service, "pyproject.toml", "dependencies = [\n", 'dependencies = [\n"rich",\n'
    )
    with (service / "pyproject.toml").open("a") as file:
        file.write("\n[tool.ours]\nfast = true\n")
    assert drifts(service) == {}


@pytest.mark.parametrize("broken", ["line-length = 79", "line-length = "])
def test_another_value_of_the_template_in_pyproject_is_drift(
    service: Path, broken: str
) -> None:
    change(service, "pyproject.toml", "line-length = 88", broken)
    assert drifts(service).keys() == {"pyproject.toml"}


def test_it_can_fail_a_build(service: Path) -> None:
    (service / "SECURITY.md").unlink()
    assert drift(service).returncode == 0
    assert drift(service, "--check").returncode == 1


def test_it_changes_nothing_and_runs_nothing_of_the_template(
    own_template: Path, tmp_path: Path
) -> None:
    questions = own_template / "copier.yml"
    task = '_tasks:\n  - "touch made-by-a-task"\n'
    questions.write_text(questions.read_text().replace("_tasks:\n", task))
    release(own_template, "v9999.0.1")
    folder = tmp_path / "service"
    run_copy(str(own_template), folder, defaults=True, skip_tasks=True, quiet=True)
    commit(folder)
    assert drift(folder, "--check").returncode == 0
    assert git(folder, "status", "--porcelain", "--ignored") == ""


def test_it_knows_the_answers_and_the_release_of_the_service(
    own_template: Path, tmp_path: Path
) -> None:
    answers = {"deploy": ["docker"], "ci": "gitlab", "proxy": "apache"}
    folder = tmp_path / "project/services/shop"
    run_copy(str(own_template), folder, answers, defaults=True, unsafe=True, quiet=True)
    commit(tmp_path / "project")
    with (own_template / "template/bulwark/web/headers.py").open("a") as file:
        file.write("# later\n")
    release(own_template, "v9999.0.1")
    assert drifts(folder) == {}


def test_a_template_that_does_not_answer_is_named(service: Path) -> None:
    change(service, ".copier-answers.yml", "_src_path: ", "_src_path: /gone")
    done = drift(service, "--check")
    assert done.returncode == 2
    assert "/gone" in done.stderr
    assert "The comparison failed" in done.stderr


def test_an_address_that_means_something_else_here_is_named(service: Path) -> None:
    move(service, "./bulwark")
    done = drift(service)
    assert done.returncode == 2
    assert "./bulwark" in done.stderr
    assert "_src_path" in done.stderr


@pytest.mark.parametrize("content", [None, b"", b"_commit: v1\n", b"\xff\xfe"])
def test_without_answers_it_shows_how_to_get_them_back(
    service: Path, content: bytes | None
) -> None:
    answers = service / ".copier-answers.yml"
    answers.unlink() if content is None else answers.write_bytes(content)
    done = drift(service)
    assert done.returncode == 2
    assert re.search(r"does not name the template.*\nRestore it", done.stderr)


def test_a_checkout_with_other_line_ends_has_none(
    service: Path, tmp_path: Path
) -> None:
    """The team has rules of its own, and this machine ends lines as Windows does."""
    (service / ".gitattributes").write_text("*.png binary\n")
    style = service / "docs/extend.md"
    style.write_bytes(style.read_bytes().replace(b"\n", b"\r\n"))
    commit(service)
    clone = tmp_path / "clone"
    git(service, "-c", "core.autocrlf=true", "clone", "-q", str(service), str(clone))
    git(clone, "config", "core.autocrlf", "true")
    assert b"\r\n" in (clone / "SECURITY.md").read_bytes()
    assert b"\r\n" not in (clone / "bin/drift").read_bytes()
    # What was committed with other line ends conflicts with a release.
    assert drifts(clone).keys() == {"docs/extend.md"}


def test_links_and_filters_of_git_are_seen_as_they_are(service: Path) -> None:
    (service / ".gitattributes").write_text("*.md filter=upper\n")
    git(service, "config", "filter.upper.clean", "tr a-z A-Z")
    (service / "infra").mkdir()
    for name in ("gunicorn.conf.py", "deploy/nginx"):
        (service / name).rename(service / "infra" / Path(name).name)
    (service / "gunicorn.conf.py").symlink_to("infra/gunicorn.conf.py")
    (service / "deploy/nginx").symlink_to("../infra/nginx")
    change(service, "docs/extend.md", "#", "# Ours:")
    found = drifts(service)
    assert "\n+# Ours: " in found["docs/extend.md"]["diff"]
    assert found["deploy/nginx/tls.conf"]["to"] == "infra/nginx/tls.conf"
    assert "gunicorn.conf.py" in found


def test_a_release_that_was_withdrawn_has_advice(service: Path) -> None:
    change(service, ".copier-answers.yml", RELEASE, "v9999.0.7")
    done = drift(service, "--check")
    assert done.returncode == 2
    assert f"_commit: {RELEASE}" in done.stderr
