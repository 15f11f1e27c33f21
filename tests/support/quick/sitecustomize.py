"""Python runs this at its start: once it imports Copier, it makes it quick."""

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType

MAIN = "copier._main"
QUICK = Path(__file__).resolve().parent.parent / "quick_copier.py"


class Loader(SourceFileLoader):
    """Loads Copier, and changes it."""

    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        quick: dict[str, object] = {"__name__": "quick_copier"}
        exec(compile(QUICK.read_text(), QUICK, "exec"), quick)
        install = quick["install"]
        assert callable(install)
        install()


class Finder:
    """Finds the module that Loader loads."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path) if name == MAIN else None
        if spec and spec.origin:
            spec.loader = Loader(name, spec.origin)
        return spec


sys.meta_path.insert(0, Finder)
