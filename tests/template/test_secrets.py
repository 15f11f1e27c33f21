"""bin/secrets and the hook that calls it: made once, strong, private, never changed."""

import base64
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from copier import run_copy, run_recopy, run_update

from tests.conftest import ROOT, Make, commit, git, release, run

FILES = (".env", ".env.production")
KEYS = {"APP_SECRET_KEY", "APP_PASSWORD_PEPPER", "APP_ENCRYPTION_KEYS"}
Service = Callable[..., Path]


@pytest.fixture
def service(tmp_path: Path) -> Service:
    """Return a function that lays out what bin/secrets needs, without Copier."""

    def lay_out(database: str = "sqlite", folder: Path = tmp_path / "service") -> Path:
        (folder / "bin").mkdir(parents=True)
        shutil.copy(ROOT / "template/bin/secrets", folder / "bin")
        (folder / "service.toml").write_text(f'database = "{database}"\n')
        return folder

    return lay_out


def make_secrets(service: Path) -> str:
    return run("bin/secrets", cwd=service)


def secrets(service: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run bin/secrets; it may fail."""
    return subprocess.run(
        ["bin/secrets", *arguments],
        cwd=service,
        capture_output=True,
        text=True,
        check=False,
    )


def values(file: Path) -> dict[str, str]:
    pairs = re.findall(r"^(\w+)=(.*)$", file.read_text(), re.MULTILINE)
    assert len(pairs) == len(dict(pairs)), f"a key twice in {file}"
    return dict(pairs)


def contents(service: Path) -> list[bytes]:
    return [(service / name).read_bytes() for name in FILES]


def mode(file: Path) -> int:
    return stat.S_IMODE(file.stat().st_mode)


def test_every_key_has_its_own_value_of_full_strength(service: Service) -> None:
    folder = service("postgresql")
    make_secrets(folder)
    development, production = (values(folder / name) for name in FILES)

    assert development.keys() == KEYS
    assert production.keys() == KEYS | {"APP_DATABASE_PASSWORD"}
    everything = [*development.values(), *production.values()]
    assert len(set(everything)) == len(everything)
    for made, mark in ((development, "development"), (production, "")):
        for key in made.keys() - {"APP_ENCRYPTION_KEYS"}:
            value = made[key].removeprefix(f"{mark}-" if mark else "")
            assert len(base64.urlsafe_b64decode(value + "==")) == 64
        number, _, key = made["APP_ENCRYPTION_KEYS"].partition(":")
        assert number == (mark or "1")
        assert len(base64.urlsafe_b64decode(key)) == 32


def test_only_values_for_development_are_marked(service: Service) -> None:
    folder = service()
    make_secrets(folder)
    development, production = (values(folder / name).values() for name in FILES)
    assert all(value.startswith("development") for value in development)
    assert not any(value.startswith("development") for value in production)


def test_sqlite_needs_no_database_password(service: Service) -> None:
    folder = service("sqlite")
    make_secrets(folder)
    assert values(folder / ".env.production").keys() == KEYS


def test_each_key_has_a_description_and_the_consequence_of_its_loss(
    service: Service,
) -> None:
    folder = service("postgresql")
    make_secrets(folder)
    for name in FILES:
        lines = (folder / name).read_text().splitlines()
        for before, line in pairwise(lines):
            if line.startswith("APP_"):
                assert re.match(r"# .*(Lost|lost)", before), line


def test_nobody_else_can_read_them_whatever_the_umask(service: Service) -> None:
    folder = service()
    run("bin/secrets", cwd=folder, umask=0)
    assert [mode(folder / name) for name in FILES] == [0o600, 0o600]


def test_the_second_run_changes_nothing(service: Service) -> None:
    folder = service()
    make_secrets(folder)
    before = contents(folder)
    assert make_secrets(folder) == "".join(
        f"{name}: nothing to add\n" for name in FILES
    )
    assert contents(folder) == before


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\n\n# the end"])
def test_missing_keys_are_added_behind_what_is_there(
    service: Service, end: str
) -> None:
    folder = service()
    mine = f"APP_SECRET_KEY='mine ÿ'\nexport APP_PASSWORD_PEPPER = mine{end}"
    content = mine.encode()
    (folder / ".env").write_bytes(content)
    output = make_secrets(folder)
    assert ".env: added APP_ENCRYPTION_KEYS\n" in output
    after = (folder / ".env").read_bytes()
    assert after.startswith(content)
    assert re.search(rb"^APP_ENCRYPTION_KEYS=development:\S{44}$", after, re.MULTILINE)
    assert after.count(b"APP_SECRET_KEY") == after.count(b"APP_PASSWORD_PEPPER") == 1


def test_a_comment_or_a_longer_name_is_no_value(service: Service) -> None:
    folder = service()
    (folder / ".env").write_text("#APP_SECRET_KEY=a\nAPP_SECRET_KEY_FALLBACKS=b\n")
    assert ".env: added APP_SECRET_KEY," in make_secrets(folder)


@pytest.mark.parametrize(
    "before",
    ["\ufeff", "\ufeffexport ", "\xa0", "\u200b", "- ", '"', "$env:", "set ", "x\r"],
)
def test_a_key_that_is_there_gets_no_second_value(
    service: Service, before: str
) -> None:
    folder = service()
    (folder / ".env").write_bytes(f"{before}APP_SECRET_KEY=mine\n".encode())
    done = secrets(folder)
    after = (folder / ".env").read_text()
    assert after.count("APP_SECRET_KEY") == 1
    assert after.count("APP_ENCRYPTION_KEYS") == 1
    # What the service would not read is named.
    read = before in ("\xa0", "\ufeff", "\ufeffexport ", "x\r")
    assert done.returncode == (0 if read else 1)
    assert read or ".env, line 1: write APP_SECRET_KEY=" in done.stderr


@pytest.mark.parametrize(
    ("encoding", "output"),
    [("utf-16", "UTF-16"), ("utf-16-le", "UTF-16"), ("latin-1", "not UTF-8")],
)
def test_a_file_in_another_encoding_is_named_and_left_alone(
    service: Service, encoding: str, output: str
) -> None:
    folder = service()
    content = "APP_SECRET_KEY=möin\n".encode(encoding)
    (folder / ".env").write_bytes(content)
    done = secrets(folder)
    assert done.returncode == 1
    assert f".env: it is {output}" in done.stderr
    assert "Traceback" not in done.stderr
    assert (folder / ".env").read_bytes() == content


@pytest.mark.parametrize(
    "written",
    [
        "APP_DATABASE_PASSWORD=pass word\n",
        "APP_DATABASE_PASSWORD='pass word'\r\n",
        '\ufeffAPP_DATABASE_PASSWORD="pass word" \n',
        "APP_DATABASE_PASSWORD=old\n  APP_DATABASE_PASSWORD=pass word",
    ],
)
def test_postgresql_gets_the_password_that_the_service_reads(
    service: Service, written: str
) -> None:
    folder = service("postgresql")
    (folder / ".env.production").write_bytes(written.encode())
    (folder / ".env.database").write_text("older")
    done = secrets(folder, "database")
    assert done.returncode == 0, done.stderr
    assert (folder / ".env.database").read_bytes() == b"pass word"
    assert mode(folder / ".env.database") == 0o600
    if os.geteuid() == 0:
        assert (folder / ".env.database").stat().st_uid == 999
    assert "pass" not in done.stdout.replace("password", "")
    # Nothing else is touched.
    assert (folder / ".env.production").read_bytes() == written.encode()
    assert not (folder / ".env").exists()


@pytest.mark.parametrize(
    "written", ["", "APP_DATABASE_PASSWORD=\n", "#APP_DATABASE_PASSWORD=x"]
)
def test_without_a_password_there_is_none_for_postgresql(
    service: Service, written: str
) -> None:
    folder = service("postgresql")
    (folder / ".env.production").write_text(written)
    done = secrets(folder, "database")
    assert done.returncode == 1
    assert "APP_DATABASE_PASSWORD is not in .env.production" in done.stderr
    assert not (folder / ".env.database").exists()


def test_another_argument_is_refused(service: Service) -> None:
    done = secrets(service(), "databse")
    assert done.returncode == 2
    assert "bin/secrets database" in done.stderr


@pytest.mark.parametrize("nothing", ["", '""', "''", "  "])
def test_an_empty_value_is_named_and_left_alone(service: Service, nothing: str) -> None:
    folder = service()
    make_secrets(folder)
    line = f"\nAPP_SECRET_KEY={nothing}\n"
    text = re.sub(r"\nAPP_SECRET_KEY=.*\n", line, (folder / ".env").read_text())
    (folder / ".env").write_text(text)
    done = subprocess.run(
        ["bin/secrets"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert ".env: APP_SECRET_KEY is empty. Delete the line" in done.stderr
    assert (folder / ".env").read_text() == text


def test_a_file_that_others_can_read_is_closed_and_reported(service: Service) -> None:
    folder = service()
    make_secrets(folder)
    (folder / ".env").chmod(0o644)
    before = contents(folder)
    assert ".env: was readable by others" in make_secrets(folder)
    assert mode(folder / ".env") == 0o600
    assert contents(folder) == before


def test_no_value_is_ever_printed(service: Service) -> None:
    folder = service("postgresql")
    output = make_secrets(folder) + make_secrets(folder)
    for name in FILES:
        for value in values(folder / name).values():
            assert value not in output


@pytest.mark.parametrize("point", ["os.fdopen", "os.fsync", "pathlib.Path.rename"])
def test_a_run_killed_half_way_loses_nothing_and_the_next_one_ends_it(
    service: Service, point: str
) -> None:
    folder = service()
    (folder / ".env").write_text("APP_SECRET_KEY=mine")
    module, _, name = point.rpartition(".")
    killer = f"""
import os, pathlib, runpy, signal
os.umask(0)
{module}.{name} = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
runpy.run_path("bin/secrets", run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", killer], cwd=folder, check=False)
    assert done.returncode == -signal.SIGKILL
    assert (folder / ".env").read_text() == "APP_SECRET_KEY=mine"
    assert all(mode(file) == 0o600 for file in folder.glob(".env?*"))

    make_secrets(folder)
    assert values(folder / ".env").keys() == KEYS
    assert values(folder / ".env")["APP_SECRET_KEY"] == "mine"
    assert {file.name for file in folder.glob(".env*")} == set(FILES)


def test_a_second_run_waits_for_the_first_and_agrees(service: Service) -> None:
    folder = service("postgresql")
    slow = """
import os, pathlib, runpy, time
sync = os.fsync
os.fsync = lambda handle: (pathlib.Path("writing").touch(), time.sleep(1), sync(handle))
runpy.run_path("bin/secrets", run_name="__main__")
"""
    first = subprocess.Popen([sys.executable, "-c", slow], cwd=folder)
    while not (folder / "writing").exists():
        assert first.poll() is None
    assert "added" not in make_secrets(folder)
    assert first.wait() == 0
    assert values(folder / ".env.production").keys() == KEYS | {"APP_DATABASE_PASSWORD"}


def test_a_link_stays_a_link(service: Service, tmp_path: Path) -> None:
    folder = service()
    (folder / ".env").symlink_to(tmp_path / "elsewhere")
    make_secrets(folder)
    assert (folder / ".env").is_symlink()
    assert mode(tmp_path / "elsewhere") == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone can act as somebody else")
def test_root_leaves_the_file_to_its_owner(service: Service) -> None:
    folder = service()
    (folder / ".env").write_text("APP_SECRET_KEY=mine\n")
    os.chown(folder / ".env", 65534, 65534)
    make_secrets(folder)
    assert (folder / ".env").stat().st_uid == 65534


def test_a_folder_that_cannot_be_written_is_named(
    service: Service, public_folder: Path
) -> None:
    folder = service(folder=public_folder / "service")
    folder.chmod(0o555)
    somebody = "nobody" if os.geteuid() == 0 else None
    done = subprocess.run(
        ["bin/secrets"], cwd=folder, user=somebody, capture_output=True, check=False
    )
    folder.chmod(0o755)
    assert done.returncode == 1
    assert f"Make {folder} writable for you" in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()


# --- In the life of a service --------------------------------------------------------


def test_a_new_service_has_them_and_git_never_sees_them(make: Make) -> None:
    folder = make(database="postgresql")
    commit(folder)
    tracked = git(folder, "ls-files").split()
    assert ".copier-answers.yml" in tracked
    assert not set(FILES) & set(tracked)
    assert git(folder, "status", "--porcelain") == ""
    everything = git(folder, "grep", "-h", "", "HEAD")
    for name in FILES:
        assert mode(folder / name) == 0o600
        for value in values(folder / name).values():
            assert value not in everything


def test_no_two_services_share_a_value(make: Make) -> None:
    first, second = make("first"), make("second")
    for name in FILES:
        one, other = values(first / name), values(second / name)
        assert not set(one.values()) & set(other.values())


def test_who_skips_the_tasks_gets_the_same_from_the_script(
    template: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "service"
    run_copy(str(template), folder, defaults=True, skip_tasks=True, quiet=True)
    assert not any((folder / name).exists() for name in FILES)
    make_secrets(folder)
    assert values(folder / ".env").keys() == KEYS


def committed(template: Path, folder: Path) -> tuple[Path, list[bytes]]:
    """Return a service under git, and the contents of its files with secrets."""
    run_copy(str(template), folder, defaults=True, unsafe=True, quiet=True)
    before = contents(folder)
    commit(folder)
    return folder, before


def test_no_later_copy_or_update_changes_a_byte(
    own_template: Path, tmp_path: Path
) -> None:
    folder, before = committed(own_template, tmp_path / "service")
    for version in ("v9999.0.1", "v9999.0.2"):
        (own_template / "template/SECURITY.md.jinja").write_text(version)
        release(own_template, version)
        run_update(folder, defaults=True, overwrite=True, unsafe=True, quiet=True)
        assert (folder / "SECURITY.md").read_text() == version
        assert contents(folder) == before
        commit(folder)
    run_recopy(folder, defaults=True, overwrite=True, unsafe=True, quiet=True)
    assert contents(folder) == before
    assert [mode(folder / name) for name in FILES] == [0o600, 0o600]


def test_a_release_that_makes_no_secrets_any_more_leaves_those_there_are(
    own_template: Path, tmp_path: Path
) -> None:
    """Copier deletes what the old release's tasks make and the new one's do not."""
    folder, before = committed(own_template, tmp_path / "service")
    questions = own_template / "copier.yml"
    text = re.sub(r"(?ms)^_tasks:.*?(?=^_message)", "", questions.read_text())
    assert "_migrations" not in text
    questions.write_text(text)
    release(own_template, "v9999.0.1")
    run_update(folder, defaults=True, overwrite=True, unsafe=True, quiet=True)
    assert contents(folder) == before


def test_a_key_that_a_new_release_needs_arrives_with_the_update(
    own_template: Path, tmp_path: Path
) -> None:
    folder, before = committed(own_template, tmp_path / "service")

    script = own_template / "template/bin/secrets"
    last = "]\nDATABASE_PASSWORD"
    new = 'Secret("APP_NEW_KEY", "Lost: nothing.", lambda _: secrets.token_hex(32)),\n'
    assert last in script.read_text()
    script.write_text(script.read_text().replace(last, new + last))
    release(own_template, "v9999.0.1")
    run_update(folder, defaults=True, overwrite=True, unsafe=True, quiet=True)

    for old, current in zip(before, contents(folder), strict=True):
        assert current.startswith(old)
        assert re.search(rb"\nAPP_NEW_KEY=[0-9a-f]{64}\n$", current)
    assert [mode(folder / name) for name in FILES] == [0o600, 0o600]


# A Python before 3.11, as far as the script can see.
OLD_PYTHON = """\
#!/bin/sh
exec {python} -c '
import runpy, sys
sys.modules["tomllib"] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")' "$@"
"""


@pytest.mark.parametrize("set_up", [False, True], ids=["not set up", "set up"])
def test_an_older_python_of_the_machine_gives_way_to_the_one_of_the_service(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, set_up: bool
) -> None:
    """Ubuntu 22.04 has Python 3.10, macOS 3.9: Open-Wine-Components/umu-launcher#37."""
    folder, old = service(), tmp_path / "old/python3"
    old.parent.mkdir()
    old.write_text(OLD_PYTHON.format(python=sys.executable))
    old.chmod(0o755)
    monkeypatch.setenv("PATH", f"{old.parent}{os.pathsep}{os.environ['PATH']}")
    if set_up:
        (folder / ".venv/bin").mkdir(parents=True)
        (folder / ".venv/bin/python").symlink_to(sys.executable)
        make_secrets(folder)
        assert set(values(folder / ".env")) >= KEYS
    else:
        assert "needs Python 3.11" in secrets(folder).stderr
