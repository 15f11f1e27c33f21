"""Which tests to run: an answer in five minutes, or what a change needs.

    python -m tests.selection --short          the answer in five minutes
    python -m tests.selection --left-out       what that leaves out
    python -m tests.selection --changed [REV]  what differs from REV, or from HEAD

Prints arguments for pytest, one a line, or names. What a change needs is the table in
CONTRIBUTING.md.
"""

import re
import subprocess
import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TESTS = ROOT / "tests"
# The template itself, a service's own suite, and one service behind nginx with TLS.
SHORT = (
    "tests/template/test_copy.py",
    "tests/service/edge",
    "tests/template/test_matrix.py::test_the_template_passes_every_check_as_it_lies",
    "tests/template/test_questions.py",
    "tests/template/test_secrets.py",
    "tests/template/test_selection.py",
)


@cache
def table() -> dict[str, set[str]]:
    """Return the paths of CONTRIBUTING.md's table, each with the tests it needs."""
    rows: dict[str, set[str]] = {}
    for line in (ROOT / "CONTRIBUTING.md").read_text().splitlines():
        if re.match(r"\| `", line):
            paths, tests = (
                re.findall(r"`([^`]+)`", cell) for cell in line.split("|")[1:3]
            )
            needed = set().union(*map(modules_of, tests))
            rows |= dict.fromkeys(paths, needed)
    return rows


def modules_of(test: str) -> set[str]:
    """Return the test modules of a name in the table: one, or those of a folder."""
    named = {path for path in modules() if Path(path).name == f"test_{test}.py"}
    inside = {path for path in modules() if Path(path).parent.name == test}
    return named or inside or {f"test_{test}.py"}


def needed(path: str) -> set[str]:
    """Return the tests that a change of one file needs.

    The longest path of the table that the file begins with decides. A test module needs
    itself, a conftest.py needs the tests in its folder, and a module that tests share
    needs all tests that import it.
    """
    if path.startswith("tests/") and path.endswith(".py"):
        return _users_of(path)
    rows = table()
    matching = [prefix for prefix in rows if path.startswith(prefix)]
    return rows[max(matching, key=len)] if matching else set()


def changed(revision: str) -> set[str]:
    """Return the files that differ from a revision, new ones included."""
    commands = (
        ("git", "diff", "--name-only", revision),
        ("git", "ls-files", "--others", "--exclude-standard"),
    )
    return {
        line
        for command in commands
        for line in subprocess.check_output(command, cwd=ROOT, text=True).splitlines()
    }


@cache
def modules() -> frozenset[str]:
    """Return all test modules."""
    found = (path.relative_to(ROOT).as_posix() for path in TESTS.rglob("test_*.py"))
    return frozenset(found)


def _users_of(path: str) -> set[str]:
    """Return the test modules among a module of `tests` and what imports it."""
    importers = {
        other.relative_to(ROOT).as_posix(): re.findall(
            r"^(?:from|import) (tests\.[\w.]+)", other.read_text(), re.MULTILINE
        )
        for other in TESTS.rglob("*.py")
    }
    found: set[str] = set()
    new = {path, *(f"tests/{folder}/__init__.py" for folder in path.split("/")[1:-1])}
    while new:
        found |= new
        names = {_name_of(file) for file in new}
        new = {
            file
            for file, imported in importers.items()
            if any(name.startswith(tuple(names)) for name in imported)
            or f"{Path(file).parent}/conftest.py" in new
        } - found
    return found & modules()


def _name_of(file: str) -> str:
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def main(arguments: list[str]) -> int:
    """Print what to run; return 1 when a change needs no test."""
    match arguments:
        case ["--short"]:
            print(*SHORT, sep="\n")
        case ["--left-out"]:
            asked = tuple(test.partition("::")[0] for test in SHORT)
            names = (Path(one).stem for one in modules() if not one.startswith(asked))
            print(*sorted(name.removeprefix("test_") for name in names), sep=", ")
        case ["--changed", *rest] if len(rest) < 2:
            tests = set().union(*map(needed, changed(*rest or ["HEAD"])))
            print(*sorted(tests), sep="\n", end="\n" if tests else "")
            return 0 if tests else 1
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
