"""What all tests share: the template as it lies, services made from it, servers."""

import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from copier import run_copy

from tests.support import quick_copier
from tests.support.machine import network
from tests.support.servers import PATH, Postgres
from tests.support.shared import made_once, shared_folder

ROOT = Path(__file__).resolve().parent.parent
RELEASE = "v9999.0.0"

# No test reads or changes what belongs to the person who runs it.
SETTINGS = tempfile.TemporaryDirectory(prefix="bulwark-tests-")
Path(SETTINGS.name, "copier.yml").write_text("{}")
Path(SETTINGS.name, "gitconfig").write_text("""\
[user]
name = Tests
email = tests@example.com
[safe]
directory = *
# Repositories of tests live for seconds: neither small nor safe from a power cut.
[core]
compression = 0
fsync = none
[gc]
auto = 0
[maintenance]
auto = false
""")
os.environ |= {
    "PATH": PATH,
    "GIT_CONFIG_GLOBAL": f"{SETTINGS.name}/gitconfig",
    "GIT_CONFIG_NOSYSTEM": "1",
    "COPIER_SETTINGS_PATH": f"{SETTINGS.name}/copier.yml",
    "COPIER_CACHE_DIR": f"{SETTINGS.name}/cache",
}
# bin/test names the uv; without it, the machine's or the checkout's.
# Without compiled files every start of a service would compile all of them.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
os.environ.setdefault("UV", shutil.which("uv") or str(ROOT / ".uv/bin/uv"))
for name in [name for name in os.environ if name.startswith("APP_")]:
    del os.environ[name]

quick_copier.install()
quick_copier.keep_clones(Path(SETTINGS.name, "clones"))
# A shell starts what runs in the background with SIGINT ignored, and so would be all
# that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

QUESTIONS: dict[str, dict[str, Any]] = {
    name: question
    for name, question in yaml.safe_load((ROOT / "copier.yml").read_text()).items()
    if not name.startswith("_")
}
Make = Callable[..., Path]


def run(*command: str | Path, cwd: Path, **options: Any) -> str:
    """Run a command, fail with all of its output, return its stdout."""
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, check=False, **options
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return str(done.stdout)


def git(folder: Path, *arguments: str) -> str:
    return run("git", *arguments, cwd=folder)


def commit(folder: Path) -> None:
    """Put a folder under git as it is."""
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "A state worth keeping", "--allow-empty")


def move(service: Path, address: str) -> None:
    """Have a service look for its template somewhere else."""
    answers = service / ".copier-answers.yml"
    lines = answers.read_text().splitlines(keepends=True)
    (named,) = [line for line in lines if line.startswith("_src_path: ")]
    lines[lines.index(named)] = f"_src_path: {address}\n"
    answers.write_text("".join(lines))


def release(folder: Path, version: str) -> None:
    """Commit and tag what a template's clone holds."""
    commit(folder)
    git(folder, "tag", version)


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the working tree, uncommitted changes included, as a tagged template."""
    clone = tmp_path_factory.mktemp("template") / "bulwark"
    git(ROOT, "clone", "-q", "--no-hardlinks", str(ROOT), str(clone))
    git(clone, f"--work-tree={ROOT}", "add", "-A")
    git(clone, "commit", "-qm", "The working tree", "--allow-empty")
    git(clone, "tag", RELEASE)
    git(clone, "reset", "-q", "--hard")
    return clone


@pytest.fixture(scope="session")
def ready(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a service that is made and set up, to be copied."""

    def make(folder: Path) -> None:
        run_copy(str(template), folder, defaults=True, unsafe=True, quiet=True)
        run("bin/setup", cwd=folder)

    return made_once(shared_folder(tmp_path_factory) / "ready", make)


# Folders of the template without which its commands work as well.
LARGE = (
    *("bulwark/account", "bulwark/admin", "bulwark/audit", "bulwark/database"),
    *("bulwark/identity", "bulwark/jobs", "bulwark/mail", "bulwark/migrations"),
    *("bulwark/observability", "bulwark/ops", "bulwark/settings", "bulwark/static"),
    *("bulwark/templates", "deploy/certbot", "deploy/docker", "deploy/fail2ban"),
    *("deploy/monitoring", "deploy/shipping", "deploy/systemd", "tests/bulwark"),
)


@pytest.fixture(scope="session")
def small_template(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a template with a quarter of the files: copies take less time."""
    clone = tmp_path_factory.mktemp("small") / "bulwark"
    shutil.copytree(template, clone, symlinks=True)
    for folder in LARGE:
        shutil.rmtree(clone / "template" / folder)
    for module in (clone / "template/bulwark").rglob("*.py"):
        if module.name not in ("__init__.py", "headers.py", "rate_limits.py"):
            module.unlink()
    commit(clone)
    git(clone, "tag", "--force", RELEASE)
    return clone


@pytest.fixture
def own_template(template: Path, tmp_path: Path) -> Path:
    """Return a copy of the template that a test may change and release again."""
    return Path(shutil.copytree(template, tmp_path / "own template", symlinks=True))


@pytest.fixture
def make(template: Path, tmp_path: Path) -> Make:
    """Return a function that makes a service from some answers and the defaults."""

    def make(
        folder: str = "service", exclude: Sequence[str] = (), **answers: Any
    ) -> Path:
        service = tmp_path / folder
        run_copy(
            str(template),
            service,
            answers,
            defaults=True,
            exclude=exclude,
            quiet=True,
            unsafe=True,
        )
        return service

    return make


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """Return a folder that every user can enter; pytest's are private."""
    with tempfile.TemporaryDirectory(prefix="bulwark-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """Return a real PostgreSQL server that lives as long as the tests."""
    with Postgres() as server:
        yield server


# --- Which worker runs what, and in which order --------------------------------------

# Tests, modules and folders that take a worker for minutes begin first, the longest
# before all others. Those that compute and those that wait take turns, so that the
# processors are busy.
LONG = (
    "test_a_service_with_all_of_it_passes_all_tests_on_postgresql",
    "test_helpdesk",
    "proxies",
    "test_the_template_passes_every_check_as_it_lies",
    "test_certificates",
    "test_an_old_service_passes_the_tests_of_the_last_release",
    *("install", "test_updates", "test_containers", "test_alerts", "test_matrix"),
    *("test_shipping", "test_extend", "test_alerts_of_parts", "test_update_command"),
    *("test_fleet", "test_scores", "test_propose", "test_fail2ban", "test_backups"),
    *("test_outages", "test_browser", "test_new"),
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run tests that share a fixture in one worker, which creates it once."""
    for item in items:
        by_place = {item.path.parent: {"package"}, item.path: {"module", "class"}}
        for place, scopes in by_place.items():
            if shared := sorted(_parameters_of_shared(item, scopes)):
                name = "-".join([place.stem.removeprefix("test_"), *shared])
                item.add_marker(pytest.mark.xdist_group(name))
                break
    items.sort(key=_turn)


def _parameters_of_shared(item: pytest.Item, scopes: set[str]) -> set[str]:
    """Return the parameters of a test's fixtures of these scopes, or ""."""
    known = item.session._fixturemanager  # pytest has no public way
    parameters = getattr(getattr(item, "callspec", None), "indices", {})
    return {
        str(parameters.get(name, ""))
        for name in getattr(item, "fixturenames", ())
        for definition in known.getfixturedefs(name, item) or ()
        if definition.scope in scopes
    }


def _turn(item: pytest.Item) -> int:
    names = {item.name, item.path.stem, item.path.parent.name}
    return next((n for n, name in enumerate(LONG) if name in names), len(LONG))


# --- Tests whose system packages are missing are skipped, as the summary shows --------


def packages() -> dict[str, str]:
    lines = (ROOT / "tests/packages.txt").read_text().splitlines()
    return dict(line.split() for line in lines if line and not line.startswith("#"))


MISSING = {name for name, command in packages().items() if not shutil.which(command)}
NEEDS = "needs the system package "


def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("needs"):
        unknown = set(mark.args) - packages().keys()
        assert not unknown, f"not in tests/packages.txt: {unknown}"
        if absent := MISSING.intersection(mark.args):
            pytest.skip(f"{NEEDS}{' '.join(sorted(absent))}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, bool, bool]:
    """Let the network be as it is while Chromium looks at pages."""
    marks = item.iter_markers("needs")
    if os.geteuid() or not any("chromium" in mark.args for mark in marks):
        return (yield)
    with network(fcntl.LOCK_SH):
        return (yield)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = [str(report.longrepr[2]) for report in skipped]
    absent = {
        package
        for reason in reasons
        if NEEDS in reason
        for package in reason.partition(NEEDS)[2].split()
    }
    if absent:
        names = " ".join(sorted(absent))
        terminalreporter.section("Not everything was tested", red=True)
        terminalreporter.line(f"Missing: {names}. To run the skipped tests as well:")
        terminalreporter.line(f"    sudo apt-get install {names}")
