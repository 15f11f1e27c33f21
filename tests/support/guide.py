"""The examples of docs/extend.md and its chapters, done as a reader would."""

import ast
import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.conftest import run

USER, MODEL, PAGES, PERMISSION, SETTING, CSP, STYLE, NGINX, DEPENDENCY = range(1, 10)

INPUT, JOB = 10, 11

NEEDS = {PAGES: [MODEL], PERMISSION: [MODEL]}

BLOCK = re.compile(
    r"^(?:\*\*`(?P<path>[^`]+)`\*\*(?:, (?P<new>new)|, under `(?P<line>[^`]+)`)?\n\n)?"
    r"```(?P<language>\w+)\n(?P<content>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


class Block(NamedTuple):
    """A block of code, and the line above it."""

    path: str | None
    new: str | None
    line: str | None
    language: str
    content: str


class Service:
    """A service whose files its team changes, as a guide in its docs/ says."""

    def __init__(self, folder: Path, guide: str = "extend.md") -> None:
        self.folder = folder
        text = (folder / "docs" / guide).read_text()
        self.needs = NEEDS if guide == "extend.md" else {}
        self.examples = [
            [Block(*found.groups()) for found in BLOCK.finditer(section)]
            for section in re.split(r"^## \d+\. ", text, flags=re.MULTILINE)
        ]

    def follow(self, *examples: int) -> None:
        """Do what examples say, after what they need."""
        done: list[int] = []
        for example in examples:
            for number in (*self.needs.get(example, []), example):
                if number not in done:
                    for block in self.examples[number]:
                        self._do(block)
                    done.append(number)

    def text(self, example: int) -> str:
        """Return the response that an example shows."""
        (text,) = (b.content for b in self.examples[example] if b.language == "text")
        return text.strip()

    def _do(self, block: Block) -> None:
        if block.language == "sh":
            for line in block.content.splitlines():
                if line == "bin/setup":
                    self.leave_shared_packages()
                self.run("sh", "-c", line)
        if block.path is None:
            return
        path = self.folder / block.path
        if block.new:
            assert not path.exists(), f"{path} is not new"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.content)
        elif block.line:
            there = path.read_text()
            assert there.count(f"{block.line}\n") == 1, f"where is {block.line}?"
            path.write_text(
                there.replace(f"{block.line}\n", f"{block.line}\n{block.content}")
            )
        elif path.suffix == ".py":
            path.write_text(merge(path.read_text(), block.content))
            self.run(".venv/bin/ruff", "check", "--select=I", "--fix", "--quiet", path)
        else:
            path.write_text(path.read_text() + block.content)

    def run(self, *command: str | Path, **environment: str) -> str:
        return run(*command, cwd=self.folder, env=os.environ | environment)

    def refusal(self, *command: str | Path, **environment: str) -> str:
        """Run a command that has to fail without a traceback; return its output."""
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=os.environ | environment,
            capture_output=True,
            text=True,
            check=False,
        )
        output = done.stdout + done.stderr
        assert done.returncode != 0, output
        assert "Traceback" not in output, output
        return output

    def python(self, code: str, **environment: str) -> str:
        """Run code beside the app; return what it prints."""
        environment = {"APP_ENV": "testing", **environment}
        return self.run(".venv/bin/python", "-c", code, **environment).strip()

    def proves(self, *proofs: str, **environment: str) -> None:
        """Run tests in the service, and its own test of models and migrations."""
        self.keep("\n".join(proofs))
        compare = "database/test_migrations.py::test_the_migrations_match_the_models"
        paths = ("tests/app", f"tests/bulwark/{compare}")
        self.run("bin/test", "-q", "-n0", *paths, **environment)

    def has_python(self, python: str) -> None:
        """Get another Python, and packages for it, as a team would."""
        (self.folder / ".python-version").write_text(f"{python}\n")
        self.leave_shared_packages()
        self.run("bin/setup")

    def leave_shared_packages(self) -> None:
        """Make the next `bin/setup` install where no other service looks."""
        if (self.folder / ".venv").is_symlink():
            (self.folder / ".venv").unlink()

    def keep(self, tests: str) -> None:
        (self.folder / "tests/app/test_proof.py").write_text(tests)

    def migrations(self) -> set[str]:
        return {path.name for path in self.folder.glob("app/migrations/*.py")}

    def is_fully_migrated(self) -> None:
        """Check that the database holds what the models say."""
        before = self.migrations()
        assert "have not changed" in self.run(
            "bin/flask", "db", "migrate", "-m", "none"
        )
        assert self.migrations() == before


def files_of_the_template(folder: Path) -> dict[Path, bytes]:
    """Return what is not the team's, nor made by tools."""
    return {
        path.relative_to(folder): path.read_bytes()
        for pattern in (
            "bulwark/**/*",
            "deploy/**/*",
            "tests/bulwark/*",
            "bin/*",
            "*.py",
        )
        for path in folder.glob(pattern)
        if path.is_file() and "__pycache__" not in path.parts
    }


def settings_of_tools(folder: Path) -> dict[str, object]:
    content = tomllib.loads((folder / "pyproject.toml").read_text())
    del content["project"]["dependencies"]
    del content["dependency-groups"]["team"]
    return content


def copy_of(ready: Path, folder: Path, guide: str = "extend.md") -> Service:
    """Return a copy of a service that is set up; the two share their packages."""
    shutil.copytree(ready, folder, symlinks=True, ignore=lambda *_: [".venv"])
    (folder / ".venv").symlink_to(ready / ".venv")
    return Service(folder, guide)


@contextmanager
def changing_its_own_files(service: Service) -> Iterator[None]:
    """Check that a team changes nothing but its own files."""
    before = files_of_the_template(service.folder), settings_of_tools(service.folder)
    yield
    after = files_of_the_template(service.folder), settings_of_tools(service.folder)
    assert after == before


def merge(there: str, added: str) -> str:
    """Put Python into a file as docs/extend.md describes."""
    for node in ast.parse(added).body:
        source = added.splitlines()[first_line(node) - 1 : node.end_lineno]
        lines, body = there.splitlines(), ast.parse(there).body
        same = [old for old in body if name_of(old) and name_of(old) == name_of(node)]
        if isinstance(node, ast.Import | ast.ImportFrom):
            top = first_line(body[1]) - 1  # body[0] is the docstring
            lines[top:top] = source
        elif same:
            if entries := entries_of(same[0], there):
                source = [declare(node, entries | entries_of(node, added))]
            if isinstance(node, ast.ClassDef):
                source = with_members_of(same[0], there, source, node)
            lines[first_line(same[0]) - 1 : same[0].end_lineno] = source
        else:
            lines += ["", "", *source]
        there = "\n".join(lines) + "\n"
    return there


def entries_of(node: ast.stmt, source: str) -> dict[str, str]:
    """Return what a declaration of a dictionary contains, as source."""
    if not isinstance(node, ast.AnnAssign) or not isinstance(node.value, ast.Dict):
        return {}

    def text(part: ast.expr) -> str:
        return ast.get_source_segment(source, part) or ""

    pairs = zip(node.value.keys, node.value.values, strict=True)
    return {text(key): text(value) for key, value in pairs if key}


def declare(node: ast.stmt, entries: dict[str, str]) -> str:
    """Return the declaration of a dictionary, with other entries."""
    assert isinstance(node, ast.AnnAssign)
    name, kind = ast.unparse(node.target), ast.unparse(node.annotation)
    lines = [f"    {key}: {value},\n" for key, value in entries.items()]
    return f"{name}: {kind} = {{\n{''.join(lines)}}}"


def with_members_of(
    old: ast.stmt, there: str, source: list[str], new: ast.ClassDef
) -> list[str]:
    """Return the source of a class, and the members that only the old one has."""
    assert isinstance(old, ast.ClassDef)
    names = {name_of(member) for member in new.body}
    kept = [
        there.splitlines()[first_line(member) - 1 : member.end_lineno]
        for member in old.body
        if name_of(member) not in {*names, None}
    ]
    return [*source, *(line for member in kept for line in ["", *member])]


def first_line(node: ast.stmt) -> int:
    """Return where a statement begins, decorators included."""
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    return min([node.lineno, *(decorator.lineno for decorator in decorators)])


def name_of(node: ast.stmt) -> str | None:
    match node:
        case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
            return name
        case ast.AnnAssign(target=ast.Name(id=name)):
            return name
        case ast.Assign(targets=[ast.Name(id=name)]):
            return name
    return None
