"""What replaces an import statement."""

import re
from dataclasses import dataclass, field

import libcst as cst
from libcst.helpers import get_full_name_for_node

WIDTH = 88
Statement = cst.Import | cst.ImportFrom


def dotted(node: cst.CSTNode | None) -> str:
    """Return `a.b` as text."""
    return (get_full_name_for_node(node) if node else None) or ""


def is_of_base(module: str) -> bool:
    """Return whether a module is one of the base."""
    return module == "bulwark" or module.startswith("bulwark.")


def local_name(alias: cst.ImportAlias) -> str:
    """Return the name that an import binds, `a.b` for `import a.b`."""
    return alias.evaluated_alias or alias.evaluated_name


@dataclass
class Needs:
    """What stays of an import statement, and what its names are imported from now."""

    statement: Statement
    kept: list[cst.ImportAlias] = field(default_factory=list)
    changed: bool = False
    # Module -> what is imported from it: a name, and what it is called here.
    names: dict[str, dict[str, str]] = field(default_factory=dict)
    modules: list[str] = field(default_factory=list)

    def keep(self, alias: cst.ImportAlias) -> None:
        """Leave a name as it is."""
        if alias not in self.kept:
            self.kept.append(alias)

    def replace(self, module: str, name: str, local: str) -> None:
        """Import a name from elsewhere, under the name that this file uses."""
        self.changed = True
        self.names.setdefault(module, {})[local] = name

    def public(self, name: str, taken: set[str]) -> str:
        """Import a name of the facade; return what to call it here."""
        return self._add("bulwark", name, taken)

    def module(self, full: str, taken: set[str]) -> str:
        """Import a module; return what to call it here."""
        parent, _, leaf = full.rpartition(".")
        return self._add(parent, leaf, taken)

    def plain(self, module: str) -> None:
        """Import a module by its full name."""
        self.changed = True
        if module not in self.modules:
            self.modules.append(module)

    def rewritten(self, old: str, indent: str, *, alone: bool) -> str:
        """Return the statements that replace this one."""
        if not self.changed:
            return old
        kept = [dotted(alias.name) for alias in self.kept if not alias.asname]
        added = [module for module in self.modules if module not in kept]
        lines = [self._remaining()] if self.kept else []
        lines += [f"import {module}" for module in added]
        for module, names in self.names.items():
            listed = [
                name if name == local else f"{name} as {local}"
                for local, name in sorted(names.items(), key=lambda pair: pair[::-1])
            ]
            lines.append(_import(module, listed, len(indent), wrap=alone))
        if not lines:
            lines = ["pass"] if not alone or indent else [""]
        if not alone:
            return "; ".join(lines)
        comments = re.findall(r"#.*", old) if "\n" in old else []
        new = "\n".join([*comments, *lines])
        return new.replace("\n", f"\n{indent}")

    def _add(self, module: str, name: str, taken: set[str]) -> str:
        self.changed = True
        names = self.names.setdefault(module, {})
        local = f"bulwark_{name}" if name in taken else name
        names[local] = name
        return local

    def _remaining(self) -> str:
        code = cst.Module([]).code_for_node
        names = [
            code(alias.with_changes(comma=cst.MaybeSentinel.DEFAULT)).strip()
            for alias in self.kept
        ]
        if isinstance(self.statement, cst.Import):
            return f"import {', '.join(names)}"
        return _import(dotted(self.statement.module), names, 0, wrap=True)


def _import(module: str, names: list[str], indent: int, *, wrap: bool) -> str:
    line = f"from {module} import {', '.join(names)}"
    if not wrap or indent + len(line) <= WIDTH:
        return line
    inner = "".join(f"    {name},\n" for name in names)
    return f"from {module} import (\n{inner})"
