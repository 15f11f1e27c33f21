"""bin/new: one command from a fresh clone to a service, kind words when it fails."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.conftest import ROOT, run
from tests.support.package_index import Wheel, index

# What a machine needs to reach the network; a test takes nothing else from this one.
NETWORK = {
    name: value
    for name, value in os.environ.items()
    if name.startswith(("PIP_", "SSL_", "UV_INDEX", "UV_DEFAULT_INDEX", "UV_SYSTEM"))
    or name.lower().endswith("_proxy")
}
# Commands that a person has; not those of the environment that runs these tests.
PATH = os.pathsep.join(
    folder
    for folder in os.environ["PATH"].split(os.pathsep)
    if Path(folder) != Path(sys.executable).parent
)

# Serves a new service where there is no network at all, and asks it for its home page.
OFFLINE = """
import fcntl, os, signal, socket, ssl, struct, subprocess, sys, time, urllib.request
with socket.socket() as any:  # the loopback interface of a new namespace is down
    fcntl.ioctl(any, 0x8914, struct.pack("16sh", b"lo", 0x1))
process = subprocess.Popen(sys.argv[1:], start_new_session=True)
trust = ssl._create_unverified_context()
try:
    for _ in range(240):
        time.sleep(0.25)
        assert process.poll() is None, "it ended by itself"
        try:
            page = urllib.request.urlopen("https://localhost:8443", context=trust)
        except OSError:
            continue
        print(page.status, page.read().decode())
        break
finally:
    os.killpg(process.pid, signal.SIGTERM)
    process.wait(20)
"""


@pytest.fixture(scope="module")
def ready() -> dict[str, str]:
    """Return settings with which bin/new need not install uv, nor fetch packages."""
    uv = os.environ["UV"]
    cache = run(uv, "cache", "dir", cwd=Path.cwd()).strip()
    return {"UV": uv, "UV_CACHE_DIR": cache}


@pytest.fixture
def checkout(template: Path, public_folder: Path) -> Path:
    """Return a fresh clone in a folder that every user can enter."""
    return Path(shutil.copytree(template, public_folder / "bulwark", symlinks=True))


def new(
    checkout: Path,
    *arguments: str | Path,
    environment: Mapping[str, str] | None = None,
    user: str | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run bin/new beside the checkout, with no standard input and no home."""
    return subprocess.run(
        [checkout / "bin/new", *arguments],
        cwd=checkout.parent,
        env={"PATH": PATH, **NETWORK, **(environment or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        user=user,
        group="nogroup" if user else None,
        extra_groups=[] if user else None,
    )


def commands(folder: Path, *names: str) -> str:
    """Return a PATH of these commands and what a shell script cannot do without."""
    folder.mkdir()
    for name in ("cat", "date", "dirname", "ls", "mktemp", "rm", "sleep", *names):
        (folder / name).symlink_to(str(shutil.which(name, path=PATH)))
    return str(folder)


def test_a_user_without_home_gets_a_service(checkout: Path) -> None:
    somebody = None
    if os.geteuid() == 0:
        somebody = "nobody"
        run("chown", "-R", "nobody:nogroup", str(checkout.parent), cwd=checkout)
    done = new(
        *(checkout, "my sérvice", "--defaults"),
        environment={"HOME": "/nonexistent"},
        user=somebody,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    service = checkout.parent / "my sérvice"
    assert (service / ".venv/bin/flask").exists()
    assert (service / ".env").stat().st_mode & 0o777 == 0o600
    assert not Path("/nonexistent").exists()
    for step in ("1/3", "2/3", "3/3"):
        assert step in done.stdout
    assert "user_created" not in done.stdout + done.stderr, "a line of the log"
    assert "python-dotenv" not in done.stdout + done.stderr, "a tip of Flask"


def test_one_command_serves_it_even_offline_once_packages_are_cached(
    checkout: Path,
) -> None:
    home = checkout.parent / "home"
    home.mkdir()
    environment = {"PATH": PATH, "HOME": str(home), **NETWORK}
    first = new(checkout, "first", "--defaults", environment=environment)
    assert first.returncode == 0, first.stdout + first.stderr

    isolated = ["unshare", "--net", *(["--map-root-user"] if os.geteuid() else [])]
    if subprocess.call([*isolated, "true"], stderr=subprocess.DEVNULL):
        pytest.skip("needs a kernel that lets this user make network namespaces")
    command = [str(checkout / "bin/new"), "second", "--defaults", "--run"]
    output = run(
        *(*isolated, sys.executable, "-c", OFFLINE, *command),
        cwd=checkout.parent,
        env=environment,
    )
    assert "\n200 " in output
    assert "My Service" in output


def test_without_a_folder_it_explains_itself(checkout: Path) -> None:
    for arguments in ((), ("--help",), ("--defaults",)):
        done = new(checkout, *arguments)
        assert done.returncode == 2
        assert "bin/new DEST [--defaults] [--run]" in done.stdout


def test_a_wrong_answer_is_explained_without_a_traceback(
    checkout: Path, ready: dict[str, str]
) -> None:
    answer = ("-d", "domain=Example.com:80")
    done = new(checkout, "service", "--defaults", *answer, environment=ready)
    assert done.returncode == 1
    assert "Did you mean example.com?" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (checkout.parent / "service").exists()


def test_files_in_the_way_stop_it_before_anything_is_written(
    checkout: Path, ready: dict[str, str]
) -> None:
    service = checkout.parent / "service"
    service.mkdir()
    (service / "service.toml").write_text("mine")
    done = new(checkout, "service", "--defaults", environment=ready)
    assert done.returncode == 1
    assert "Nothing was written" in done.stderr
    assert "--overwrite" in done.stderr
    assert [file.name for file in service.iterdir()] == ["service.toml"]
    assert (service / "service.toml").read_text() == "mine"


@pytest.mark.parametrize(
    ("have", "named"),
    [
        ((), "git is not installed"),
        (("git",), "No Python 3.11 or newer was found"),
    ],
)
def test_a_missing_command_is_named_with_its_package(
    checkout: Path, tmp_path: Path, have: tuple[str, ...], named: str
) -> None:
    environment = {"PATH": commands(tmp_path / "bin", *have)}
    done = new(checkout, "service", "--defaults", environment=environment)
    assert done.returncode == 1
    assert named in done.stderr
    assert "apt-get install" in done.stderr


@pytest.mark.parametrize(
    ("python", "named"),
    [
        ('case "$1" in -V) echo Python 3.9.2 ;; *) exit 1 ;; esac', "Python 3.9.2"),
        ('case "$2" in *venv*) exit 1 ;; esac', "no venv module"),
    ],
)
def test_an_unfit_python_is_named_with_its_package(
    checkout: Path, tmp_path: Path, python: str, named: str
) -> None:
    path = commands(tmp_path / "bin", "git")
    (tmp_path / "bin/python3").write_text(f"#!/bin/sh\n{python}\n")
    (tmp_path / "bin/python3").chmod(0o755)
    done = new(checkout, "service", "--defaults", environment={"PATH": path})
    assert done.returncode == 1
    assert named in done.stderr
    assert "apt-get install python3" in done.stderr


def test_no_network_is_named(checkout: Path, tmp_path: Path) -> None:
    nowhere = {"UV_DEFAULT_INDEX": "http://127.0.0.1:9", "UV_HTTP_RETRIES": "0"}
    nowhere |= {"PIP_INDEX_URL": "http://127.0.0.1:9", "PIP_RETRIES": "0"}
    nowhere |= {"UV_CACHE_DIR": str(tmp_path), "PIP_NO_INDEX": "1"}
    done = new(checkout, "service", "--defaults", environment=nowhere)
    assert done.returncode == 1
    assert "Check the network" in done.stderr


# Copier, as far as bin/new needs it: the service is its commands and one package.
SMALL_COPIER = """
import pathlib, shutil, sys
root, dest = map(pathlib.Path, sys.argv[-2:])
shutil.copytree(root / "template/bin", dest / "bin")
(dest / "pyproject.toml").write_text(
    "[project]\\nname='service'\\nversion='1'\\nrequires-python='>=3.11'\\n"
    "dependencies=['hello']\\n[tool.uv]\\npackage=false\\n"
)
"""
STORE = Path("/etc/ssl/certs/ca-certificates.crt")  # Debian's
WITH_STORE = f'mount --bind "$1" {STORE}; shift; exec "$@"'


def packages() -> dict[str, Wheel]:
    """Return what bin/new installs, as small as can be, with the real uv."""
    version = re.search(r"(?m)^version=(.+)$", (ROOT / "template/bin/uv").read_text())
    assert version
    copier = {"copier/__init__.py": "", "copier/__main__.py": SMALL_COPIER}
    uv = f'#!/bin/sh\nexec {os.environ["UV"]} "$@"\n'
    return {
        "uv": Wheel(version[1], commands={"uv": uv}),
        "copier": Wheel("1.0", copier),
        "hello": Wheel("1.0", commands={"flask": "#!/bin/sh\necho prepared\n"}),
    }


def test_what_is_set_for_other_projects_leaves_packages_in_their_place(
    checkout: Path, tmp_path: Path
) -> None:
    """airspeed-velocity/asv#522, and UV_PROJECT_ENVIRONMENT of devcontainers."""
    (checkout / "requirements.lock").write_text("copier==1.0\n")
    elsewhere = str(tmp_path / "elsewhere")
    with index(tmp_path, packages()) as (url, authority):
        environment = {
            "HOME": str(tmp_path),
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_INDEX_URL": url,
            "UV_DEFAULT_INDEX": url,
            "SSL_CERT_FILE": str(authority),
            "PIP_USER": "1",
            "PIP_TARGET": elsewhere,
            "UV_PROJECT_ENVIRONMENT": elsewhere,
        }
        done = new(checkout, "service", "--defaults", environment=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "prepared" in done.stdout
    assert not Path(elsewhere).exists()


@pytest.mark.parametrize("where", ["the machine", "SSL_CERT_FILE", "nowhere"])
def test_a_proxy_with_an_authority_of_its_own_is_trusted_if_the_machine_trusts_it(
    checkout: Path, tmp_path: Path, where: str
) -> None:
    isolated = ["unshare", "--mount", *(["--map-root-user"] if os.geteuid() else [])]
    if not STORE.exists() or subprocess.call([*isolated, "true"]):
        pytest.skip("needs Debian's store, and a kernel with mount namespaces")
    (checkout / "requirements.lock").write_text("copier==1.0\n")
    with index(tmp_path, packages()) as (url, authority):
        environment = {
            "PATH": PATH,
            "HOME": str(tmp_path),
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_INDEX_URL": url,
            "PIP_RETRIES": "0",
            "UV_DEFAULT_INDEX": url,
            "UV_HTTP_RETRIES": "0",
            **({"SSL_CERT_FILE": str(authority)} if where == "SSL_CERT_FILE" else {}),
        }
        store = str(authority if where == "the machine" else STORE)
        done = subprocess.run(
            [
                *(*isolated, "sh", "-ec", WITH_STORE, "-", store),
                *(checkout / "bin/new", "service", "--defaults"),
            ],
            cwd=checkout.parent,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    if where == "nowhere":
        assert done.returncode == 1
        assert "If a certificate was rejected" in done.stderr
    else:
        assert done.returncode == 0, done.stdout + done.stderr
        assert "prepared" in done.stdout
