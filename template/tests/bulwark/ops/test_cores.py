"""As many processes as there are cores to use: benoitc/gunicorn#2028 and #2877."""

import os
import runpy
from pathlib import Path

import pytest

from bulwark.ops import cores
from tests.conftest import ROOT


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Be on a machine of 16 cores."""
    monkeypatch.setattr(
        os, "sched_getaffinity", lambda _: set(range(16)), raising=False
    )
    monkeypatch.setattr(os, "cpu_count", lambda: 16)


def groups(root: Path, own: str, limits: dict[str, str]) -> Path:
    """Lay out what Linux shows: the group of this process, and cpu.max of some."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(f"0::{own}\n")
    for name, limit in limits.items():
        folder = root / "sys/fs/cgroup" / name.strip("/")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cpu.max").write_text(f"{limit} 100000\n")
    return root


@pytest.mark.parametrize(
    ("own", "limits", "found"),
    [
        ("/", {"/": "200000"}, 2),  # docker run --cpus=2
        ("/", {"/": "150000"}, 2),
        ("/", {"/": "20000"}, 1),
        ("/", {"/": "max"}, 16),
        ("/", {}, 16),
        ("/system/web", {"/system/web": "300000"}, 3),  # CPUQuota=300%
        ("/system/web", {"/system": "400000", "/system/web": "max"}, 4),
        ("/system/web", {"/system/other": "100000"}, 16),
        ("/../..", {"/": "200000"}, 2),
    ],
)
def test_a_limit_of_the_container_counts(
    tmp_path: Path, own: str, limits: dict[str, str], found: int
):
    assert cores.count(groups(tmp_path, own, limits)) == found


def test_without_control_groups_the_cores_of_the_machine_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """macOS has neither: rxvt/s3fetch#21."""
    monkeypatch.delattr(os, "sched_getaffinity")
    assert cores.count(tmp_path) == 16


def test_gunicorn_starts_as_many_processes_as_can_run(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(cores, "count", lambda: 3)
    assert runpy.run_path(str(ROOT / "gunicorn.conf.py"))["workers"] == 3


def test_shared_memory_that_can_not_be_written_is_not_used(
    monkeypatch: pytest.MonkeyPatch,
):
    """Some containers have it read-only: benoitc/gunicorn#2859."""
    monkeypatch.setattr(os, "access", lambda path, mode: path != "/dev/shm")
    assert runpy.run_path(str(ROOT / "gunicorn.conf.py"))["worker_tmp_dir"] is None
