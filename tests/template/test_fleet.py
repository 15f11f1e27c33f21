"""bin/fleet: what an update would do to many services, none of which it changes."""

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from copier import run_copy

from tests.conftest import RELEASE, ROOT, commit, git, release
from tests.support.quick_copier import IN_PROCESSES
from tests.support.servers import end_session, eventually

NEWS = "v9999.1.0"
FIX = "# a fix\n"
LENT = ["bin/copier", "bin/drift", "bin/releases", "bin/update", "bin/uv"]


class Fleet:
    """Services of one template, each in a state of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.template = folder, folder / "template"

    def show(self, *options: str | Path, code: int = 0, **variables: str) -> str:
        """Return the output of bin/fleet for services."""
        done = subprocess.run(
            [ROOT / "bin/fleet", *options],
            cwd=self.folder,
            env=os.environ | IN_PROCESSES | variables,
            capture_output=True,
            text=True,
            check=False,
        )
        assert "Traceback" not in done.stderr
        assert done.returncode == code, done.stderr
        return done.stdout

    def found(
        self, *options: str, code: int = 0, **variables: str
    ) -> dict[str, dict[str, Any]]:
        """Return its JSON output, by service."""
        services = json.loads(self.show("--json", *options, code=code, **variables))
        return {service["path"]: service for service in services}

    def state(self, name: str) -> list[Any]:
        """Return each byte of a service, those of git included."""
        return [
            (path, path.read_bytes(), path.stat().st_mode)
            for path in sorted((self.folder / name).rglob("*"))
            if path.is_file()
        ]

    def copy(self, name: str, **scripts: str) -> Path:
        """Return a new service that is behind and has scripts of its own in bin/."""
        service = self.folder / name
        shutil.copytree(self.folder / "behind", service, symlinks=True)
        for script, text in scripts.items():
            (service / "bin" / script).write_text(f"#!/bin/sh\n{text}\n")
        commit(service)
        return service


def change(service: Path, path: str, line: str) -> None:
    with (service / path).open("a") as file:
        file.write(line)
    commit(service)


@pytest.fixture(scope="module")
def fleet(small_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    fleet = Fleet(tmp_path_factory.mktemp("fleet"))
    shutil.copytree(small_template, fleet.template, symlinks=True)
    current = fleet.folder / "current"
    options: dict[str, Any] = {"defaults": True, "unsafe": True, "quiet": True}
    run_copy(str(fleet.template), current, vcs_ref=RELEASE, **options)
    commit(current)
    for name in ("behind", "edited", "lost", "dirty", "orphan", "old"):
        shutil.copytree(current, fleet.folder / name, symlinks=True)
    shutil.rmtree(current)
    change(fleet.folder / "edited", "bulwark/web/headers.py", "# ours\n")
    git(fleet.folder / "lost", "rm", "-q", "bulwark/web/headers.py")
    commit(fleet.folder / "lost")
    (fleet.folder / "dirty/app/views.py").write_text("# unsaved\n")
    answers = fleet.folder / "orphan/.copier-answers.yml"
    answers.write_text(answers.read_text().replace("_src_path: ", "_src_path: /gone"))
    commit(fleet.folder / "orphan")
    git(fleet.folder / "old", "rm", "-q", *LENT)
    commit(fleet.folder / "old")
    change(fleet.template, "template/bulwark/web/headers.py", FIX)
    release(fleet.template, NEWS)
    run_copy(str(fleet.template), current, **options)
    commit(current)
    (fleet.folder / "nothing").mkdir()
    answers = fleet.folder / "behind/.copier-answers.yml"
    (fleet.folder / "plain").mkdir()
    shutil.copy(answers, fleet.folder / "plain")
    shutil.copytree(fleet.folder / "plain", fleet.folder / "unborn")
    git(fleet.folder / "unborn", "init", "-q")
    return fleet


SERVICES = ("current", "behind", "edited", "lost", "dirty", "old")
UNFIT = ("orphan", "nothing", "plain", "unborn")
ALL = (*SERVICES, *UNFIT)


def test_each_service_is_listed_by_what_an_update_does_to_it(fleet: Fleet) -> None:
    (fleet.folder / "behind/wsgi.py").touch()  # which `git status` writes down
    before = [fleet.state(name) for name in ALL]
    found = fleet.found(*ALL, code=1)
    assert [fleet.state(name) for name in ALL] == before
    assert tuple(found) == ALL

    def output(key: str) -> dict[str, Any]:
        return {name: found[name][key] for name in ALL if found[name][key]}

    assert output("release") == {
        **dict.fromkeys((*SERVICES, "orphan"), RELEASE),
        "current": NEWS,
    }
    assert output("newest") == dict.fromkeys(SERVICES, NEWS)
    assert output("update") == {
        "current": "current",
        "behind": "applies",
        "edited": "conflicts",
        "lost": "applies",
        "dirty": "applies",
        "old": "applies",
        **dict.fromkeys(UNFIT, "failed"),
    }
    edited = ["bulwark/web/headers.py"]
    assert output("drift") == {"edited": edited, "lost": edited, "old": LENT}
    assert {name for name in ALL if found[name]["drift"] is None} == {*UNFIT}
    assert output("conflicts") == {"edited": edited}
    assert output("not_here") == {"lost": edited}
    notes = {name: " ".join(lines) for name, lines in output("notes").items()}
    assert "uncommitted changes, which were left out" in notes.pop("dirty")
    assert "/gone" in notes.pop("orphan")
    assert f"It has no {', '.join(LENT)}; this" in notes.pop("old")
    assert "unborn is not committed" in notes.pop("unborn")
    assert notes == {
        "nothing": "nothing is not a service: it has no .copier-answers.yml.",
        "plain": "plain is not in a git repository that can be read.",
    }


def test_the_table_has_a_line_for_each_and_details_below(fleet: Fleet) -> None:
    (fleet.folder / "services").write_text("# ours\n behind \n\nedited\nlost\n")
    lines = fleet.show("--from", "services", code=1).splitlines()
    assert [line.split() for line in lines[:4]] == [
        ["service", "release", "newest", "drift", "update", "missed", "tests"],
        ["behind", RELEASE, NEWS, "0", "applies", "0"],
        ["edited", RELEASE, NEWS, "1", "conflicts", "(1)", "0"],
        ["lost", RELEASE, NEWS, "1", "applies", "1"],
    ]
    assert {
        "  conflict: bulwark/web/headers.py",
        "  not here: bulwark/web/headers.py",
    } < {*lines}
    assert max(map(len, lines)) <= 80


def test_a_fix_that_did_not_arrive_needs_somebody(fleet: Fleet) -> None:
    assert fleet.found("lost", code=1)["lost"]["update"] == "applies"


def test_services_of_the_same_name_are_distinguished(fleet: Fleet) -> None:
    for name in ("one/shop", "two/shop"):
        shutil.copytree(fleet.folder / "plain", fleet.folder / name)
    lines = fleet.show("one/shop", "two/shop", "plain/.", code=1).splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["one/shop", "two/shop", "plain"]


def test_a_checkout_of_the_template_can_be_tried_before_it_is_released(
    fleet: Fleet,
) -> None:
    tried = fleet.folder / "next"
    git(fleet.folder, "clone", "-q", str(fleet.template), "next")
    change(tried, "template/bulwark/web/rate_limits.py", FIX)
    (tried / "template/bulwark/new.py").write_text(FIX)  # not even committed
    found = fleet.found("--template", "next", "behind", "orphan")
    for service in found.values():
        assert service["newest"].startswith(f"{NEWS}-2-g")
        assert service["update"] == "applies"


def test_an_address_is_read_as_the_checkout_would_read_it(fleet: Fleet) -> None:
    service = fleet.copy("near")
    answers = service / ".copier-answers.yml"
    answers.write_text(answers.read_text().replace(str(fleet.template), "../template"))
    commit(service)
    assert fleet.found("near")["near"]["update"] == "applies"


def test_tests_run_on_what_the_update_leaves(fleet: Fleet) -> None:
    arrived = f"grep -q '{FIX.strip()}' bulwark/web/headers.py && test -e .set-up"
    set_up = "touch .set-up"
    well, ill = "echo '7 passed in 1s'", "echo '1 failed, 6 passed in 1s'; exit 1"
    fleet.copy("well", setup=set_up, test=f"{arrived} && {well}")
    fleet.copy("ill", setup=set_up, test=f"{arrived} && {ill}")
    fleet.copy("stuck", setup="echo 'no network'; exit 1")
    found = fleet.found("--test", "well", "ill", "edited", code=1)
    tests = {name: service["tests"] for name, service in found.items()}
    assert tests == {"well": "passed", "ill": "failed", "edited": "not run"}
    assert found["well"]["counts"] == {"passed": 7}
    assert found["ill"]["counts"] == {"failed": 1, "passed": 6}
    assert found["ill"]["notes"] == ["1 failed, 6 passed in 1s"]
    stuck = fleet.found("--test", "stuck", code=1)["stuck"]
    assert stuck["tests"] == "failed"
    assert stuck["notes"] == ["bin/setup failed:\nno network"]


def test_a_database_that_this_shell_names_is_none_of_a_fleets(fleet: Fleet) -> None:
    fleet.copy("apart", setup="echo set up with $APP_DATABASE_URL; exit 1")
    shell = {"APP_DATABASE_URL": "sqlite:////real.db"}
    found = fleet.found("--test", "apart", code=1, **shell)
    assert found["apart"]["notes"] == ["bin/setup failed:\nset up with"]


ONE_OF_ITS_TESTS = "tests/bulwark/web/test_headers.py"


def test_the_tests_of_a_real_service_run(fleet: Fleet, own_template: Path) -> None:
    service = fleet.folder / "real"
    run_copy(str(own_template), service, defaults=True, unsafe=True, quiet=True)
    change(own_template, "template/bulwark/web/headers.py", FIX)
    release(own_template, NEWS)
    for path in (service / "tests/bulwark").rglob("test_*.py"):
        # One is enough here: all are in its own CI.
        if path.relative_to(service).as_posix() != ONE_OF_ITS_TESTS:
            path.unlink()
    commit(service)
    assert fleet.found("--test", "real")["real"]["counts"]["passed"] > 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_cut_off_it_leaves_no_clone_and_nothing_that_runs(
    fleet: Fleet, number: signal.Signals, tmp_path: Path
) -> None:
    pid = tmp_path / "pid"
    fleet.copy(f"slow-{number}", drift=f"echo $$ >{pid}\nexec sleep 600")
    clones = tmp_path / "clones"
    clones.mkdir()
    with subprocess.Popen(
        [ROOT / "bin/fleet", f"slow-{number}"],
        cwd=fleet.folder,
        env=os.environ | {"TMPDIR": str(clones)},
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    ) as running:
        try:
            eventually(lambda: pid.exists() and pid.read_text())
            slow = int(pid.read_text())
            assert list(clones.iterdir())
            running.send_signal(number)
            assert running.wait(timeout=60) == 130
            assert not list(clones.iterdir())
            with pytest.raises(ProcessLookupError):
                os.kill(slow, 0)
        finally:
            end_session(running.pid)


@pytest.mark.parametrize(
    "options", [[], ["--from", "nowhere"], ["--jobs", "x", "y"], ["--jobs", "0", "y"]]
)
def test_wrong_usage_is_explained(fleet: Fleet, options: list[str]) -> None:
    assert fleet.show(*options, code=2) == ""
