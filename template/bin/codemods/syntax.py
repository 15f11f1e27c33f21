"""What libcst finds in a Python file: imports of the base, and where names are used.

Names are looked up by scope: a parameter called `events` is not the module `events`.
Edits replace bytes, so formatting and comments stay.
"""

from collections.abc import Iterator
from typing import NamedTuple

import libcst as cst
from libcst import matchers as m
from libcst.metadata import (
    BaseAssignment,
    ByteSpanPositionProvider,
    ImportAssignment,
    MetadataWrapper,
    ParentNodeProvider,
    ScopeProvider,
)

from codemods.imports import Statement, dotted, is_of_base


class Imported(NamedTuple):
    """A name that is imported, and each name or quoted annotation that uses it."""

    statement: Statement
    local: str
    roots: list[cst.CSTNode]


class Syntax:
    """A Python file with the scopes and the positions of its names."""

    def __init__(self, source: bytes) -> None:
        parsed = cst.parse_module(source)
        wrapper = MetadataWrapper(parsed, unsafe_skip_copy=True)
        self.source, self.tree = source, wrapper.module
        self.spans = wrapper.resolve(ByteSpanPositionProvider)
        self.parents = wrapper.resolve(ParentNodeProvider)
        scopes = {scope for scope in wrapper.resolve(ScopeProvider).values() if scope}
        self.assignments = [each for scope in scopes for each in scope.assignments]
        # Names that mean something else here than the base's.
        self.taken = {each.name for each in self.assignments if not _statement(each)}
        # Modules that are imported by their full name.
        self.plain = {
            dotted(alias.name)
            for statement in m.findall(self.tree, m.Import())
            if isinstance(statement, cst.Import)
            for alias in statement.names
        }

    def imported(self) -> Iterator[Imported]:
        """Yield the names that are imported from the base."""
        for each in self.assignments:
            if statement := _statement(each):
                roots = [_root(access.node) for access in each.references]
                yield Imported(statement, each.name, roots)
        for node in m.findall(self.tree, m.ImportFrom(names=m.ImportStar())):
            if isinstance(node, cst.ImportFrom) and is_of_base(dotted(node.module)):
                yield Imported(node, "*", [])

    def span(self, node: cst.CSTNode) -> tuple[int, int]:
        """Return where the bytes of a node start and end."""
        span = self.spans[node]
        return span.start, span.start + span.length

    def indent(self, statement: cst.CSTNode) -> tuple[str, bool]:
        """Return how far a statement is indented, and whether it has its line alone."""
        start, _ = self.span(statement)
        line = self.source.rfind(b"\n", 0, start) + 1
        before = self.source[line:start].decode()
        alone = m.SimpleStatementLine(body=[m.DoNotCare()])
        return before, m.matches(self.parents[statement], alone)

    def chain(self, root: cst.CSTNode) -> tuple[list[str], list[cst.CSTNode]]:
        """Return the attributes that are read from a name, and each expression."""
        names, nodes = list[str](), list[cst.CSTNode]()
        node: cst.CSTNode = root
        while isinstance(parent := self.parents.get(node), cst.Attribute):
            if parent.value is not node:
                break
            names.append(parent.attr.value)
            nodes.append(parent)
            node = parent
        return names, nodes


def _root(node: cst.CSTNode) -> cst.CSTNode:
    """Return the first name of `a.b.c`, or the string of a quoted annotation."""
    while isinstance(node, cst.Attribute):
        node = node.value
    return node


def _statement(assignment: BaseAssignment) -> Statement | None:
    """Return the statement that imports a name, if it imports from the base."""
    if not isinstance(assignment, ImportAssignment):
        return None
    match assignment.node:
        case cst.ImportFrom(relative=[]) as statement:
            return statement if is_of_base(dotted(statement.module)) else None
        case cst.Import() as statement:
            names = [dotted(alias.name) for alias in statement.names]
            return statement if any(map(is_of_base, names)) else None
    return None
