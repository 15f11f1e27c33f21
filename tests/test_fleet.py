"""bin/fleet: what an update would do to many services, none of which it changes."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from copier import run_copy

from tests.conftest import RELEASE, ROOT, commit, git, release

NEWS = "v9999.1.0"
FIX = "# a fix\n"


class Fleet:
    """Services of one template, each in a state of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.template = folder, folder / "template"

    def show(self, *options: str | Path, code: int = 0) -> str:
        """Return what bin/fleet says of services."""
        done = subprocess.run(
            [ROOT / "bin/fleet", *options],
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert "Traceback" not in done.stderr
        assert done.returncode == code, done.stderr
        return done.stdout

    def found(self, *options: str, code: int = 0) -> dict[str, dict[str, Any]]:
        """Return what bin/fleet says for programs, by service."""
        services = json.loads(self.show("--json", *options, code=code))
        return {service["path"]: service for service in services}

    def state(self, name: str) -> list[Any]:
        service = self.folder / name
        files = [
            (path, path.read_bytes(), path.stat().st_mode)
            for path in sorted(service.rglob("*"))
            if path.is_file() and path.name != "index"
        ]
        return [git(service, "status", "--porcelain"), git(service, "branch"), files]


def change(service: Path, path: str, line: str) -> None:
    with (service / path).open("a") as file:
        file.write(line)
    commit(service)


@pytest.fixture(scope="module")
def fleet(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    fleet = Fleet(tmp_path_factory.mktemp("fleet"))
    shutil.copytree(template, fleet.template, symlinks=True)
    current = fleet.folder / "current"
    options: dict[str, Any] = {"defaults": True, "unsafe": True, "quiet": True}
    run_copy(str(fleet.template), current, vcs_ref=RELEASE, **options)
    commit(current)
    for name in ("behind", "edited", "lost", "dirty", "orphan"):
        shutil.copytree(current, fleet.folder / name, symlinks=True)
    shutil.rmtree(current)
    change(fleet.folder / "edited", "bulwark/headers.py", "# ours\n")
    git(fleet.folder / "lost", "rm", "-q", "bulwark/headers.py")
    commit(fleet.folder / "lost")
    (fleet.folder / "dirty/app/views.py").write_text("# unsaved\n")
    answers = fleet.folder / "orphan/.copier-answers.yml"
    answers.write_text(answers.read_text().replace("_src_path: ", "_src_path: /gone"))
    commit(fleet.folder / "orphan")
    change(fleet.template, "template/bulwark/headers.py", FIX)
    release(fleet.template, NEWS)
    run_copy(str(fleet.template), current, **options)
    commit(current)
    (fleet.folder / "nothing").mkdir()
    return fleet


ALL = ("current", "behind", "edited", "lost", "dirty", "orphan", "nothing")


def test_each_service_is_told_by_what_an_update_does_to_it(fleet: Fleet) -> None:
    before = [fleet.state(name) for name in ALL[:-1]]
    found = fleet.found(*ALL, code=1)
    assert [fleet.state(name) for name in ALL[:-1]] == before
    assert tuple(found) == ALL

    def said(key: str) -> dict[str, Any]:
        return {name: found[name][key] for name in ALL if found[name][key]}

    assert said("release") == {
        "current": NEWS,
        **dict.fromkeys(("behind", "edited", "lost", "dirty"), RELEASE),
    }
    assert said("newest") == dict.fromkeys(ALL[:5], NEWS)
    assert said("update") == {
        "current": "current",
        "behind": "applies",
        "edited": "conflicts",
        "lost": "applies",
        "dirty": "applies",
        "orphan": "failed",
        "nothing": "failed",
    }
    edited = ["bulwark/headers.py"]
    assert said("drift") == {"edited": edited, "lost": edited}
    assert said("conflicts") == {"edited": edited}
    assert said("not_here") == {"lost": edited}
    notes = {name: " ".join(lines) for name, lines in said("notes").items()}
    assert "not committed and were not tried" in notes.pop("dirty")
    assert "/gone" in notes.pop("orphan")
    assert notes == {"nothing": "nothing is no service: it has no .copier-answers.yml."}


def test_the_table_has_a_line_for_each_and_details_below(fleet: Fleet) -> None:
    (fleet.folder / "services").write_text("# ours\nbehind\n\nedited\n")
    lines = fleet.show("--from", "services", code=1).splitlines()
    assert [line.split() for line in lines[:3]] == [
        ["service", "release", "newest", "drift", "update", "tests"],
        ["behind", RELEASE, NEWS, "0", "applies"],
        ["edited", RELEASE, NEWS, "1", "conflicts"],
    ]
    assert "  conflict: bulwark/headers.py" in lines
    assert {len(line.rstrip()) <= 80 for line in lines} == {True}


def test_a_release_can_be_tried_before_it_is_one(fleet: Fleet) -> None:
    tried = fleet.folder / "next"
    git(fleet.folder, "clone", "-q", str(fleet.template), "next")
    change(tried, "template/bulwark/limits.py", FIX)
    git(tried, "tag", "v9999.2.0")
    found = fleet.found("--template", "next", "behind", "current")
    assert [service["newest"] for service in found.values()] == ["v9999.2.0"] * 2
    assert {service["update"] for service in found.values()} == {"applies"}


def test_tests_run_on_what_the_update_leaves(fleet: Fleet) -> None:
    for name, script in (
        ("well", "test -e .set-up"),
        ("ill", "echo 'one fails'; exit 1"),
    ):
        service = Path(
            shutil.copytree(fleet.folder / "behind", fleet.folder / name, symlinks=True)
        )
        (service / "bin/setup").write_text("#!/bin/sh\ntouch .set-up\n")
        (service / "bin/test").write_text(
            f"#!/bin/sh\ngrep -q '{FIX.strip()}' bulwark/headers.py && {script}\n"
        )
        commit(service)
    found = fleet.found("--test", "well", "ill", "edited", code=1)
    tests = {name: service["tests"] for name, service in found.items()}
    assert tests == {"well": "passed", "ill": "failed", "edited": "not run"}
    assert found["ill"]["notes"] == ["one fails"]


@pytest.mark.parametrize("options", [[], ["--from", "nowhere"], ["--jobs", "x", "y"]])
def test_wrong_usage_is_told(fleet: Fleet, options: list[str]) -> None:
    assert fleet.show(*options, code=2) == ""
