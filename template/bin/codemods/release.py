"""What this release of the base holds, read from the source text of `bulwark/`."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from codemods.moves import MODULES, NAMES

Name = tuple[str, str]  # a module, and a name in it


@dataclass(frozen=True)
class Place:
    """Where a name is now, and what the facade calls it, if it offers it."""

    module: str
    name: str
    public: str | None

    @property
    def full(self) -> str:
        """Return the name with its module."""
        return f"{self.module}.{self.name}"


class Release:
    """The modules of `bulwark/`, what they define, and the names of the facade."""

    def __init__(self, service: Path) -> None:
        self.service = service
        self._read: dict[str, dict[str, Name | None]] = {}

    def place(self, module: str, name: str) -> Place | None:
        """Return where a name of this or an earlier release is, or None if gone."""
        found = self._find(module, name)
        if found is None:
            renamed = NAMES.get(f"{module}.{name}")
            renamed = renamed or f"{MODULES.get(module, module)}.{name}"
            found = self._find(*_split(renamed))
        if found is None:
            return None
        return Place(*found, self._facade.get(self._definition(*found)))

    def module(self, name: str) -> str | None:
        """Return what a module of this or an earlier release is called now."""
        if self._path(name):
            return name
        return MODULES.get(name)

    def split(self, dotted: list[str]) -> tuple[str, list[str]]:
        """Split a dotted name into the longest module and what follows it."""
        for end in range(len(dotted), 1, -1):
            if self.module(name := ".".join(dotted[:end])):
                return name, dotted[end:]
        return dotted[0], dotted[1:]

    @property
    def public(self) -> set[str]:
        """Return the names that the facade offers."""
        return set(self._facade.values())

    def has_template(self, name: str) -> bool:
        """Return whether the base has a template of this name."""
        return (self.service / "bulwark/templates" / name).is_file()

    @cached_property
    def _facade(self) -> dict[Name, str]:
        bound = self._bound("bulwark")
        tree = ast.parse((self.service / "bulwark/__init__.py").read_bytes())
        offered = {
            name
            for node in tree.body
            if isinstance(node, ast.Assign)
            and ast.unparse(node.targets[0]) == "__all__"
            for name in ast.literal_eval(node.value)
        }
        return {
            self._definition("bulwark", name): name for name in offered if name in bound
        }

    def _find(self, module: str, name: str) -> Name | None:
        """Return where a name can be imported: its module, or another of its room."""
        if name in self._bound(module):
            return module, name
        if module == "bulwark":
            return None
        room = ".".join(module.split(".")[:2])
        defined = [other for other in self._within(room) if self._defines(other, name)]
        return (defined[0], name) if len(defined) == 1 else None

    def _within(self, room: str) -> Iterator[str]:
        top = self.service / room.replace(".", "/")
        for path in sorted(top.rglob("*.py")):
            parts = path.relative_to(self.service).with_suffix("").parts
            yield ".".join(parts).removesuffix(".__init__")

    def _defines(self, module: str, name: str) -> bool:
        return self._bound(module).get(name, ("", "")) is None

    def _definition(self, module: str, name: str) -> Name:
        """Follow imports to the module that defines a name."""
        origin = self._bound(module).get(name)
        if origin is None or not self._path(origin[0]):
            return module, name
        return self._definition(*origin)

    def _path(self, module: str) -> Path | None:
        base = self.service / module.replace(".", "/")
        candidates = (base.with_suffix(".py"), base / "__init__.py")
        return next((path for path in candidates if path.is_file()), None)

    def _bound(self, module: str) -> dict[str, Name | None]:
        """Return the names of a module: where each is imported from, if it is."""
        if module not in self._read:
            path = self._path(module)
            tree = ast.parse(path.read_bytes()) if path else ast.Module([], [])
            self._read[module] = {
                bound: origin
                for bound, origin in _bindings(tree.body)
                if not (origin and self._path(".".join(origin)))  # a module
            }
        return self._read[module]


def _bindings(body: list[ast.stmt]) -> Iterator[tuple[str, Name | None]]:
    for node in body:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield node.name, None
            case ast.ImportFrom(module=str(module)):
                yield from ((x.asname or x.name, (module, x.name)) for x in node.names)
            case ast.Assign(targets=targets):
                parts = [part for target in targets for part in ast.walk(target)]
                yield from ((x.id, None) for x in parts if isinstance(x, ast.Name))
            case ast.AnnAssign(target=ast.Name(id=name)):
                yield name, None
            case ast.If() | ast.Try():
                yield from _bindings(node.body + node.orelse)


def _split(full: str) -> Name:
    module, _, name = full.rpartition(".")
    return module, name
