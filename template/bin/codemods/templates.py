"""Templates: names of included files, macros, blocks and attributes that changed."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from codemods.changes import Changes
from codemods.moves import ATTRIBUTES, BLOCKS, MACROS, TEMPLATES
from codemods.release import Release

TAG = re.compile(rb"\{%.*?%\}|\{\{.*?\}\}", re.DOTALL)
OVERRIDES = ("bulwark/", "security/")


@dataclass(frozen=True)
class Rename:
    """A pattern whose first group becomes another name; `before` leads to it."""

    pattern: str
    old: str
    new: str
    before: str = ""


def rewrite(path: Path, service: Path, release: Release) -> Changes:
    """Return what changes in a template of the team."""
    changes = Changes(path, path.read_bytes())
    text = changes.source.decode(errors="replace")
    name = _name(path, service)
    renames = [*_files(), *_macros(text, name), *_blocks(text, name, service)]
    if name.startswith(OVERRIDES):
        renames += [
            Rename(rf"\.({old})\b", old, new, ".") for old, new in ATTRIBUTES.items()
        ]
    for tag in TAG.finditer(changes.source):
        for rename in renames:
            for found in re.finditer(rename.pattern.encode(), tag[0]):
                start, end = (tag.start() + edge for edge in found.span(1))
                changes.replace(start, end, rename.new)
                changes.note(
                    start, f"{rename.before}{rename.old} → {rename.before}{rename.new}"
                )
    _move(changes, name, service, release)
    return changes


def _move(changes: Changes, name: str, service: Path, release: Release) -> None:
    """Rename an override whose template was renamed; report one without a template."""
    if not name.startswith("bulwark/") or release.has_template(name):
        return
    target = service / "app/templates" / TEMPLATES.get(name, "")
    if name not in TEMPLATES:
        text = "overrides a template that does not exist: no page shows it"
        changes.note(0, text, by_hand=True)
    elif target.exists():
        text = f"overrides {TEMPLATES[name]} now, which you also have: merge the two"
        changes.note(0, text, by_hand=True)
    else:
        changes.note(0, f"{name} → {TEMPLATES[name]}")
        changes.rename_to = target


def _name(path: Path, service: Path) -> str:
    """Return how `extends` calls a template of the app."""
    top = service / "app/templates"
    return path.relative_to(top).as_posix() if path.is_relative_to(top) else ""


def _files() -> Iterator[Rename]:
    for old, new in TEMPLATES.items():
        yield Rename(rf"[\"']({re.escape(old)})[\"']", old, new)


def _spellings(template: str) -> str:
    """Return a pattern for a template's name, quoted, now and before."""
    names = [template, *(old for old, new in TEMPLATES.items() if new == template)]
    return rf"[\"'](?:{'|'.join(map(re.escape, names))})[\"']"


def _macros(text: str, name: str) -> Iterator[Rename]:
    """Yield the renamed macros that this template imports or overrides."""
    for template, macros in MACROS.items():
        source = _spellings(template)
        imported = "".join(re.findall(rf"\bfrom\s+{source}\s+import\b([^%]*)%", text))
        modules = re.findall(rf"\bimport\s+{source}\s+as\s+(\w+)", text)
        for old, new in macros.items():
            called = rf"(?<![\w.])({old})(?=\s*\()"
            own = TEMPLATES.get(name, name) == template
            if own or re.search(rf"\b{old}\b(?!\s+as\b)", imported):
                yield Rename(called, old, new)
            if re.search(rf"\b{old}\b", imported):
                listed = rf"(?s)\bfrom\s+{source}\s+import\b.*?(?<![\w.])({old})\b"
                yield Rename(listed, old, new)
            for module in modules:
                yield Rename(rf"(?<![\w.]){module}\.({old})\b", old, new, f"{module}.")


def _blocks(text: str, name: str, service: Path) -> Iterator[Rename]:
    """Yield the renamed blocks of the templates that this one extends."""
    for template, blocks in BLOCKS.items():
        if name == template or template in _ancestors(text, service):
            for old, new in blocks.items():
                yield Rename(rf"\b(?:end)?block\s+({old})\b", old, new, "block ")
                yield Rename(rf"\bself\.({old})\b", old, new, "self.")


def _ancestors(text: str, service: Path) -> set[str]:
    """Return what a template extends, through other templates of the team."""
    found: set[str] = set()
    waiting = [text]
    while waiting:
        for name in re.findall(r"\{%-?\s*extends\s+[\"']([^\"']+)", waiting.pop()):
            path = service / "app/templates" / name
            if name not in found and path.is_file():
                waiting.append(path.read_text(encoding="utf-8", errors="replace"))
            found.add(TEMPLATES.get(name, name))
    return found
