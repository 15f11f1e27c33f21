"""Which tests run, and where: --changed picks them, and xdist keeps groups together."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import selection
from tests.conftest import LONG

ROOT = Path(__file__).resolve().parents[2]


def tracked() -> list[str]:
    listed = subprocess.check_output(("git", "ls-files"), cwd=ROOT, text=True)
    return listed.splitlines()


def test_the_table_names_only_what_exists() -> None:
    for path, tests in selection.table().items():
        assert any(file.startswith(path) for file in tracked()), path
        assert tests <= selection.modules(), path


def test_each_file_of_the_template_needs_a_test() -> None:
    for file in tracked():
        if file.startswith(("bin/", "copier.yml", "hooks/", "template/")):
            assert selection.needed(file), file


def test_each_test_is_needed_by_something() -> None:
    asked = set().union(
        *selection.table().values(), {"tests/template/test_selection.py"}
    )
    assert selection.modules() - asked == set()


@pytest.mark.parametrize(
    ("path", "needed"),
    [
        ("tests/template/test_copy.py", "tests/template/test_copy.py"),
        ("tests/support/machine.py", "tests/server/install/test_units.py"),
        ("tests/server/proxies/conftest.py", "tests/server/proxies/test_overload.py"),
        ("template/deploy/apache/apply", "tests/server/proxies/test_overload.py"),
        ("tests/template/edits/models.py", "tests/template/test_updates.py"),
        (
            "template/deploy/nginx/site.conf.jinja",
            "tests/service/edge/test_gunicorn.py",
        ),
        ("template/bulwark/mail/__init__.py", "tests/template/test_matrix.py"),
    ],
)
def test_a_change_needs_what_proves_it(path: str, needed: str) -> None:
    assert needed in selection.needed(path)


def test_a_deeper_folder_decides() -> None:
    nginx = selection.needed("template/deploy/nginx/apply")
    assert "tests/server/test_containers.py" not in nginx


def test_what_begins_first_exists() -> None:
    paths = [ROOT / module for module in selection.modules()]
    places = {name for path in paths for name in (path.stem, path.parent.name)}
    texts = [path.read_text() for path in paths]
    for name in LONG:
        assert name in places or any(f"def {name}(" in text for text in texts)


def test_tests_of_a_group_run_in_one_worker(tmp_path: Path) -> None:
    """They share a machine, and come one after the other."""
    file = tmp_path / "test_groups.py"
    file.write_text("""
import pytest

@pytest.mark.xdist_group("a")
@pytest.mark.parametrize("number", range(6))
def test_a(number): ...

@pytest.mark.xdist_group("b")
@pytest.mark.parametrize("number", range(6))
def test_b(number): ...
""")
    command = ("-m", "pytest", "-v", "-n", "2", "--dist", "loadgroup", str(file))
    output = subprocess.check_output(
        (sys.executable, *command, f"--rootdir={tmp_path}"), cwd=tmp_path, text=True
    )
    for group in ("a", "b"):
        workers = re.findall(rf"\[(gw\d)\].*::test_{group}\[", output)
        assert len(workers) == 6
        assert len(set(workers)) == 1, output
