"""What `app/` may import: the names of `bulwark` itself, which docs/extend.md lists."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import bulwark
from tests.conftest import ROOT

GUIDE = (ROOT / "docs/extend.md").read_text(encoding="utf-8")
CHAPTERS = [
    (ROOT / "docs" / name).read_text(encoding="utf-8")
    for name in (
        *("accounts.md", "api.md", "data.md", "email.md", "embedding.md", "forms.md"),
        *("every_day.md", "jobs.md", "pages.md", "rich_text.md", "uploads.md"),
    )
]
OWN = ("app", "tests/app")


def deeper_imports(folder: Path) -> Iterator[str]:
    """Yield each import of a module behind the facade, and what to write instead."""
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for advice in advice_on(node):
                yield f"{path.relative_to(ROOT)}:{node.lineno}: {advice}"  # type: ignore[attr-defined]


def advice_on(node: ast.AST) -> Iterator[str]:
    """Yield what to write instead of an import."""
    if isinstance(node, ast.Import):
        for name in (alias.name for alias in node.names):
            if name.startswith("bulwark."):
                yield f"import names from `bulwark`, not `{name}`"
    elif isinstance(node, ast.ImportFrom) and f"{node.module}.".startswith("bulwark."):
        for name in (alias.name for alias in node.names):
            if name not in bulwark.__all__:
                yield f"`{node.module}.{name}` may move with any update"
            elif node.module != "bulwark":
                yield f"write `from bulwark import {name}`"


def test_the_app_imports_only_names_that_stay():
    found = [line for folder in OWN for line in deeper_imports(ROOT / folder)]
    assert not found, "docs/extend.md lists what you import:\n" + "\n".join(found)


def test_a_deeper_import_is_named_with_what_to_write(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    (tmp_path / "app.py").write_text(
        "import bulwark.mail\n"
        "from bulwark.database import db\n"
        "from bulwark.mail import OutgoingMail\n"
        "from bulwark import permission\n"
    )
    assert list(deeper_imports(tmp_path)) == [
        "app.py:1: import names from `bulwark`, not `bulwark.mail`",
        "app.py:2: write `from bulwark import db`",
        "app.py:3: `bulwark.mail.OutgoingMail` may move with any update",
    ]


def test_each_name_is_explained_and_used_in_an_example():
    table, *examples = re.split(r"^## ", GUIDE, flags=re.MULTILINE)[1:]
    explained = set(re.findall(r"^\| (.+?) \|", table, re.MULTILINE))
    names = {name for cell in explained for name in re.findall(r"`(\w+)`", cell)}
    assert names == set(bulwark.__all__)
    seeds = [path.read_text(encoding="utf-8") for path in (ROOT / "app").rglob("*.py")]
    code = "".join([*examples, *CHAPTERS, *seeds])
    assert [name for name in sorted(names) if not re.search(rf"\b{name}\b", code)] == []


def test_each_class_that_stays_has_a_style():
    (_, section) = GUIDE.split("\n## 7. A style\n")
    classes = re.findall(r"^\| `(\w+)` \|", section.split("\n## ")[0], re.MULTILINE)
    style = (ROOT / "bulwark/static/bulwark.css").read_text(encoding="utf-8")
    assert classes
    assert [name for name in classes if not re.search(rf"\.{name}\b", style)] == []
