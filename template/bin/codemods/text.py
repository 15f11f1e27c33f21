"""Names of the base in comments and strings, among them paths that a test patches."""

import re

from codemods.changes import Changes
from codemods.moves import TEMPLATES
from codemods.release import Release

DOTTED = re.compile(r"\bbulwark(?:\.\w+)+")


def rewrite(changes: Changes, start: int, end: int, release: Release) -> None:
    """Bring a comment or a string up to date."""
    text = changes.source[start:end].decode()
    inner = text.strip("\"'")
    if inner in TEMPLATES:
        at = start + text.index(inner)
        changes.replace(at, at + len(inner), TEMPLATES[inner])
        changes.note(at, f"{inner} → {TEMPLATES[inner]}")
    for found in DOTTED.finditer(text):
        module, rest = release.split(found[0].split("."))
        new = successor(module, rest, release, patched=inner == found[0])
        if new and new != found[0]:
            at = start + len(text[: found.start()].encode())
            changes.replace(at, at + len(found[0]), new)
            changes.note(at, f"{found[0]} → {new}")


def successor(
    module: str, rest: list[str], release: Release, *, patched: bool
) -> str | None:
    """Return what a dotted name is now; to patch it, where it is defined."""
    if not rest:
        return release.module(module)
    if not (place := release.place(module, rest[0])):
        return None
    name = place.full
    if place.public and not patched:
        name = f"bulwark.{place.public}"
    return ".".join([name, *rest[1:]])
