"""Python runs this when it starts. When Copier is imported, it is made quick."""

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

MAIN = "copier._main"
QUICK = Path(__file__).resolve().parent.parent / "quick_copier.py"


class Loader(SourceFileLoader):
    """Loads Copier, and changes it."""

    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        loader = SourceFileLoader("quick_copier", str(QUICK))
        spec = spec_from_loader(loader.name, loader)
        assert spec
        quick = module_from_spec(spec)
        loader.exec_module(quick)
        quick.install()


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
