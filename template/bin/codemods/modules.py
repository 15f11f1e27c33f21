"""Python files: imports of `bulwark`, and the names that are used through them."""

from pathlib import Path

import libcst as cst
from libcst import matchers as m

from codemods import text
from codemods.changes import Changes
from codemods.imports import Needs, dotted, is_of_base, local_name
from codemods.moves import ARGUMENTS, GONE
from codemods.release import Place, Release
from codemods.syntax import Imported, Syntax


def rewrite(path: Path, release: Release) -> Changes:
    """Return what changes in a Python file of the team."""
    changes = Changes(path, path.read_bytes())
    try:
        syntax = Syntax(changes.source)
    except (cst.ParserSyntaxError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        changes.note(0, f"can't be read as Python: {reason}", by_hand=True)
        return changes
    Module(syntax, changes, release).rewrite()
    for node in m.findall(syntax.tree, m.SimpleString() | m.Comment()):
        text.rewrite(changes, *syntax.span(node), release)
    return changes


class Module:
    """A Python file whose imports of the base are brought up to date."""

    def __init__(self, syntax: Syntax, changes: Changes, release: Release) -> None:
        self.syntax, self.changes, self.release = syntax, changes, release
        self.needs: dict[cst.CSTNode, Needs] = {}

    def rewrite(self) -> None:
        """Collect all changes."""
        for imported in self.syntax.imported():
            self._imported(imported)
        for call in m.findall(self.syntax.tree, m.Call()):
            self._arguments(call)
        for statement, needs in self.needs.items():
            start, end = self.syntax.span(statement)
            old = self.changes.source[start:end].decode()
            indent, alone = self.syntax.indent(statement)
            new = needs.rewritten(old, indent, alone=alone)
            self.changes.replace(start, end, new)

    def _arguments(self, call: cst.CSTNode) -> None:
        """Rename keyword arguments of the facade's functions."""
        assert isinstance(call, cst.Call)  # noqa: S101  what findall() looked for
        name = dotted(call.func).rpartition(".")[2]
        for keyword in (arg.keyword for arg in call.args if arg.keyword):
            if new := ARGUMENTS.get(name, {}).get(keyword.value):
                self._put(keyword, new, f"{name}({new}=…)")

    # --- Imports ----------------------------------------------------------------------

    def _imported(self, imported: Imported) -> None:
        """Collect what changes for one imported name."""
        statement, local, roots = imported
        if isinstance(statement.names, cst.ImportStar):
            note = "import * from the base: name what you import"
            self._note(statement, note, by_hand=True)
            return
        needs = self.needs.setdefault(statement, Needs(statement))
        for alias in statement.names:
            if local_name(alias) != local:
                continue
            if isinstance(statement, cst.ImportFrom):
                self._from(needs, alias, dotted(statement.module), roots)
            elif not is_of_base(dotted(alias.name)):
                needs.keep(alias)
            elif alias.asname:
                self._module(needs, alias, dotted(alias.name), roots)
            else:
                self._plain(needs, alias, roots)

    def _from(
        self,
        needs: Needs,
        alias: cst.ImportAlias,
        module: str,
        roots: list[cst.CSTNode],
    ) -> None:
        """`from bulwark.access import public`, or `from bulwark import access`."""
        full = f"{module}.{alias.evaluated_name}"
        bound = self.release.place(module, alias.evaluated_name)
        if self.release.module(full) and not (bound and bound.public):
            self._module(needs, alias, full, roots)
            return
        if not (place := self._place(alias, module, alias.evaluated_name)):
            needs.keep(alias)
            return
        target = (
            ("bulwark", place.public) if place.public else (place.module, place.name)
        )
        if target == (module, alias.evaluated_name):
            needs.keep(alias)
        else:
            needs.replace(*target, local_name(alias))
            self._note(alias, f"{full} → from {target[0]} import {target[1]}")

    def _module(
        self,
        needs: Needs,
        alias: cst.ImportAlias,
        module: str,
        roots: list[cst.CSTNode],
    ) -> None:
        """`from bulwark import database`, or `import bulwark.database as d`."""
        now, local = self.release.module(module) or module, local_name(alias)
        still = bare = not roots
        for root in roots:
            used, chain = self.syntax.chain(root)
            if not used:
                still = bare = True
                self._patched(root, module, now)
                continue
            deeper, rest = self.release.split([*module.split("."), *used])
            if not rest or not (place := self._place(root, deeper, rest[0])):
                still = True
                continue
            node = chain[len(deeper.split(".")) - len(module.split("."))]
            if place.public:
                self._use_public(needs, node, place)
            elif place.module == now and deeper == module:
                still = True
                self._rename_attribute(node, f"{module}.{rest[0]}", place)
            else:
                name = needs.module(place.module, self.syntax.taken)
                self._put(node, f"{name}.{place.name}", place.full)
        if not still:
            needs.changed = True
        elif now == module:
            needs.keep(alias)
        else:
            parent, _, leaf = now.rpartition(".")
            needs.replace(parent, leaf, local)
            self._note(alias, f"{module} → {now}")
        if bare:
            self._warn(alias, now)

    def _plain(
        self, needs: Needs, alias: cst.ImportAlias, roots: list[cst.CSTNode]
    ) -> None:
        """`import bulwark.database`, used as `bulwark.database.db`."""
        imported, still = dotted(alias.name), False
        for root in roots:
            used, chain = self.syntax.chain(root)
            module, rest = self.release.split(["bulwark", *used])
            # `bulwark.events` works as well where only another module is imported.
            mine = module == imported or module not in self.syntax.plain
            if module == "bulwark" or not mine:
                still = still or imported == "bulwark"
                continue
            place = self._place(root, module, rest[0]) if rest else None
            if not place:
                still = still or bool(rest) or module == imported
                continue
            node = chain[len(module.split(".")) - 1]
            if place.public:
                self._use_public(needs, node, place)
            else:
                still = still or place.module == imported
                if place.module != imported:
                    needs.plain(place.module)
                self._put(node, place.full, place.full)
        if still or not roots:
            needs.keep(alias)
            if imported != "bulwark" and not roots:
                self._warn(alias, imported)
        else:
            needs.changed = True

    # --- Names ------------------------------------------------------------------------

    def _place(self, node: cst.CSTNode, module: str, name: str) -> Place | None:
        """Return where a name is now; report one that is gone or may move again."""
        full = f"{module}.{name}"
        place = self.release.place(module, name)
        if place is None:
            advice = GONE.get(full, "it is not in this release")
            self._note(node, f"{full} is gone: {advice}", by_hand=True)
        elif not place.public and module != "bulwark":
            self._warn(node, place.full)
        return place

    def _warn(self, node: cst.CSTNode, full: str) -> None:
        """Report the use of something behind the facade."""
        note = f"{full} is not in the facade and may move again: docs/extend.md"
        self._note(node, note, by_hand=True)

    def _use_public(self, needs: Needs, node: cst.CSTNode, place: Place) -> None:
        name = needs.public(str(place.public), self.syntax.taken)
        self._put(node, name, f"from bulwark import {place.public}")

    def _rename_attribute(self, node: cst.CSTNode, old: str, place: Place) -> None:
        if isinstance(node, cst.Attribute) and node.attr.value != place.name:
            self._note(node, f"{old} → {place.full}")
            self.changes.replace(*self.syntax.span(node.attr), place.name)

    def _put(self, node: cst.CSTNode, new: str, described: str) -> None:
        start, end = self.syntax.span(node)
        old = self.changes.source[start:end].decode()
        if old != new:
            self._note(node, f"{old} → {described}")
            self.changes.replace(start, end, new)

    def _patched(self, root: cst.CSTNode, module: str, now: str) -> None:
        """`monkeypatch.setattr(events, "tell", …)`: a name of the module as text."""
        if not isinstance(root, cst.Name):
            note = f"{module} in a quoted annotation: look where it is now"
            self._note(root, note, by_hand=True)
            return
        call = self.syntax.parents[self.syntax.parents[root]]
        if not (isinstance(call, cst.Call) and len(call.args) > 1):
            return
        first, second = call.args[0].value, call.args[1].value
        if first is not root or not isinstance(second, cst.SimpleString):
            return
        name = str(second.evaluated_value)
        place = self.release.place(module, name)
        if place is None or place.module != now:
            note = f"{module}.{name} is {place.full if place else 'gone'}"
            self._note(second, note, by_hand=True)
        elif place.name != name:
            start, end = self.syntax.span(second)
            self.changes.replace(start + 1, end - 1, place.name)
            self._note(second, f"{module}.{name} → {place.full}")

    def _note(self, node: cst.CSTNode, text: str, *, by_hand: bool = False) -> None:
        self.changes.note(self.syntax.span(node)[0], text, by_hand=by_hand)
