"""Copy, update, own: what lands in a folder, what stays the team's, what is refused."""

import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest
from copier import run_copy, run_recopy
from copier.errors import UserMessageError

from tests.conftest import RELEASE, Make, commit, git, release, run
from tests.support.copies import SECRETS, tree, update


def template_files(template: Path) -> list[Path]:
    return [Path(line) for line in git(template, "ls-files", "template").splitlines()]


# --- The template -------------------------------------------------------------------


def test_at_most_one_file_in_ten_is_a_template(template: Path) -> None:
    files = template_files(template)
    rendered = [file for file in files if file.suffix == ".jinja"]
    assert len(rendered) * 10 <= len(files), rendered


def test_no_python_is_a_template(template: Path) -> None:
    files = template_files(template)
    assert not [file for file in files if file.name.endswith(".py.jinja")]


def test_lines_end_alike_in_every_checkout(template: Path, tmp_path: Path) -> None:
    """Scripts here run, and services get what was committed, on Windows as well."""
    settings = ("-c", "core.autocrlf=true", "-c", "core.eol=crlf")
    git(tmp_path, *settings, "clone", "-q", str(template), "clone")
    listed = git(tmp_path / "clone", "ls-files", "--eol").splitlines()
    ends = {tuple(line.split()[:2]) for line in listed}
    assert ends == {("i/lf", "w/lf"), ("i/-text", "w/-text"), ("i/none", "w/none")}


def test_what_is_no_template_arrives_byte_for_byte(make: Make, template: Path) -> None:
    service, other = make(), make("other", ci="gitlab", proxy="apache")
    for file in template_files(template):
        if "{" not in str(file) and file.suffix != ".jinja":
            name = file.relative_to("template")
            made = service / name if (service / name).exists() else other / name
            assert made.read_bytes() == (template / file).read_bytes()


def test_nothing_made_while_working_in_the_template_is_copied(
    own_template: Path, tmp_path: Path
) -> None:
    """Copied from a plain folder, where git ignores nothing."""
    shutil.rmtree(own_template / ".git")
    clean = tmp_path / "clean"
    run_copy(str(own_template), clean, defaults=True, unsafe=True, quiet=True)
    for litter in (
        *(".venv/bin/python", ".uv/x", "instance/app.db", "bulwark/__pycache__/a.pyc"),
        *(".env", ".env.production", ".mypy_cache/x", ".coverage", ".git/config"),
        *("htmlcov/index.html", ".DS_Store"),
    ):
        file = own_template / "template" / litter
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("litter")
    littered = tmp_path / "littered"
    run_copy(str(own_template), littered, defaults=True, unsafe=True, quiet=True)
    assert tree(littered).keys() == tree(clean).keys()
    assert not any("litter" in (littered / name).read_text() for name in SECRETS)


# --- Copying ------------------------------------------------------------------------


def test_a_folder_with_spaces_and_accents_is_fine(make: Make) -> None:
    service = make("Ünïcode folder/my 'service'")
    assert run("bin/secrets", cwd=service).count("nothing to add") == 2


def test_a_folder_in_use_keeps_what_the_template_does_not_have(
    make: Make, tmp_path: Path
) -> None:
    folder = tmp_path / "service"
    (folder / "app").mkdir(parents=True)
    (folder / "notes.txt").write_text("mine")
    (folder / "app/__init__.py").write_text("# mine\n")
    make()
    assert (folder / "notes.txt").read_text() == "mine"
    assert (folder / "app/__init__.py").read_text() == "# mine\n"
    assert (folder / "bulwark/__init__.py").exists()


def test_a_file_in_the_way_is_never_replaced_unasked(
    template: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "service"
    folder.mkdir()
    (folder / "service.toml").write_text("mine")
    command = ["copier", "copy", "--trust", "--defaults", str(template), str(folder)]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "--overwrite" in done.stderr
    assert (folder / "service.toml").read_text() == "mine"


def test_the_quick_copier_of_tests_writes_what_copier_writes(
    template: Path, make: Make, tmp_path: Path
) -> None:
    run("copier", "copy", "--trust", "--defaults", template, "stock", cwd=tmp_path)
    assert tree(tmp_path / "stock") == tree(make("quick"))


def test_a_second_copy_changes_nothing(make: Make) -> None:
    service = make()
    before = tree(service)
    make()
    assert tree(service) == before


def test_a_machine_without_git_can_copy_from_a_plain_folder(
    own_template: Path, tmp_path: Path
) -> None:
    shutil.rmtree(own_template / ".git")
    commands = tmp_path / "bin"
    commands.mkdir()
    for name in ("env", "python3"):
        (commands / name).symlink_to(str(shutil.which(name)))
    copier = str(shutil.which("copier"))
    folder = tmp_path / "service"
    run(
        *(copier, "copy", "--trust", "--defaults", str(own_template), str(folder)),
        cwd=tmp_path,
        env={"PATH": str(commands)},
    )
    assert (folder / "service.toml").exists()
    assert (folder / ".env").exists()


def test_without_trust_nothing_is_written_and_the_reason_is_shown(
    template: Path, tmp_path: Path
) -> None:
    command = ["copier", "copy", "--defaults", str(template), "service"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 4
    assert "--trust" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_each_choice_brings_its_files_and_no_others(make: Make) -> None:
    everything = tree(make("all"))
    nothing = tree(make("none", deploy=[], ci="none"))
    gitlab = tree(make("gitlab", deploy=[], ci="gitlab"))
    docker = tree(make("docker", deploy=["docker"], ci="none"))
    systemd = tree(make("systemd", deploy=["systemd"], ci="none"))
    apache = tree(make("apache", proxy="apache"))

    def added(by: dict[str, tuple[bytes, bool]]) -> set[str]:
        assert nothing.keys() <= by.keys()
        return {file for file in by if file not in nothing}

    assert added(gitlab) == {".gitlab-ci.yml", "renovate.json"}
    both = {"deploy/certbot", "deploy/monitoring", "docs/runbooks.md"}
    assert rooms(added(docker)) == both | {"compose.yaml", "deploy/docker"}
    units = {"deploy/fail2ban", "deploy/shipping", "deploy/systemd"}
    assert rooms(added(systemd)) == both | units
    jobs = ("audit", "ci", "update")
    github = {f".github/workflows/{name}.yml" for name in jobs}
    github.add(".github/dependabot.yml")
    assert added(everything) == added(docker) | added(systemd) | github
    of_nginx, of_apache = (
        everything.keys() - apache.keys(),
        apache.keys() - everything.keys(),
    )
    assert rooms(of_nginx) == {"app/nginx", "deploy/nginx"}
    assert rooms(of_apache) == {"app/apache", "deploy/apache"}


def rooms(files: Iterable[str]) -> set[str]:
    """Return the folders of files, two levels deep."""
    return {"/".join(file.split("/")[:2]) for file in files}


# --- Updating -----------------------------------------------------------------------


@pytest.fixture
def service(own_template: Path, tmp_path: Path) -> Path:
    """Return a service under git, made from a template that a test may change."""
    folder = tmp_path / "service"
    run_copy(str(own_template), folder, defaults=True, unsafe=True, quiet=True)
    commit(folder)
    return folder


def change_everything(own_template: Path) -> None:
    """Release a template whose files all have one more line, and that has a new one."""
    for file in (own_template / "template").rglob("*"):
        if file.is_file() and file.suffix in (".py", ".html", ".css", ".jinja"):
            with file.open("a") as text:
                text.write("\n" if file.suffix == ".jinja" else f"/* {file.name} */\n")
    (own_template / "template/bulwark/new.py").write_text("# new\n")
    (own_template / "template/app/new.py").write_text("# new\n")
    release(own_template, "v9999.0.1")


def test_an_update_never_touches_the_teams_half(
    own_template: Path, service: Path
) -> None:
    seeds = [file for file in tree(service) if file.startswith(("app/", "tests/app/"))]
    assert {"app/__init__.py"} < set(seeds)
    (service / "app/__init__.py").write_text("# rewritten by the team\n")
    (service / seeds[-1]).unlink()
    (service / "app/own.py").write_text("# own\n")
    commit(service)
    before = tree(service)

    change_everything(own_template)
    update(service)

    after = tree(service)
    assert after["bulwark/__init__.py"] != before["bulwark/__init__.py"]
    assert "bulwark/new.py" in after
    for half in ("app/", "tests/app/"):
        assert {file: after[file] for file in after if file.startswith(half)} == {
            file: before[file] for file in before if file.startswith(half)
        }


def test_an_update_equals_a_fresh_copy(
    own_template: Path, service: Path, tmp_path: Path
) -> None:
    change_everything(own_template)
    folders = ("template/app", "template/tests/app")
    for folder in folders:
        shutil.rmtree(own_template / folder)
    seeded = ("README.md.jinja", ".github/dependabot.yml.jinja")
    seeds = (*folders, *(f"template/{name}" for name in seeded))
    git(own_template, "checkout", RELEASE, "--", *seeds)
    release(own_template, "v9999.0.2")
    update(service)
    fresh = tmp_path / "fresh"
    run_copy(str(own_template), fresh, defaults=True, unsafe=True, quiet=True)
    assert tree(service) == tree(fresh)


def test_a_change_of_answers_equals_a_fresh_copy_with_them(
    own_template: Path, service: Path, tmp_path: Path
) -> None:
    answers = {"deploy": ["docker"], "ci": "gitlab", "admin_email": "me@example.org"}
    update(service, **answers)
    fresh = tmp_path / "fresh"
    run_copy(str(own_template), fresh, answers, defaults=True, unsafe=True, quiet=True)
    assert tree(service) == tree(fresh)


def test_an_update_without_news_changes_nothing(service: Path) -> None:
    before = tree(service)
    update(service)
    assert tree(service) == before


def test_recopy_keeps_the_teams_half_as_well(service: Path) -> None:
    (service / "app/__init__.py").write_text("# rewritten by the team\n")
    (service / "bulwark/__init__.py").write_text("# damaged\n")
    run_recopy(service, defaults=True, overwrite=True, quiet=True, unsafe=True)
    assert (service / "app/__init__.py").read_text() == "# rewritten by the team\n"
    assert (service / "bulwark/__init__.py").read_text() != "# damaged\n"


def test_an_update_of_unsaved_work_is_refused(service: Path) -> None:
    (service / "app/__init__.py").write_text("# unsaved\n")
    with pytest.raises(UserMessageError, match="commit or stash"):
        update(service)
    assert (service / "app/__init__.py").read_text() == "# unsaved\n"


def test_the_last_release_updates_to_the_working_tree(
    template: Path, tmp_path: Path
) -> None:
    tags = git(template, "tag", "--sort=v:refname", "--merged", "HEAD~1").split()
    if not tags:
        return  # nothing was released yet
    service = tmp_path / "service"
    run_copy(
        str(template),
        service,
        defaults=True,
        quiet=True,
        unsafe=True,
        vcs_ref=tags[-1],
    )
    commit(service)
    update(service)
