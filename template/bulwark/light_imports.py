"""Imports packages without their parts that a service seldom or never uses.

They take a tenth of a start's time and memory. `bulwark/__init__.py` imports this
module first, before anything imports the packages.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from threading import Lock
from types import ModuleType
from typing import Any

# Each verifies one format of attestation, which most passkeys don't send.
ATTESTATION = [
    f"webauthn.{module}"
    for module in (
        "helpers.validate_certificate_chain",
        "helpers.verify_safetynet_timestamp",
        "registration.formats.android_key",
        "registration.formats.android_safetynet",
        "registration.formats.apple",
        "registration.formats.fido_u2f",
        "registration.formats.packed",
        "registration.formats.tpm",
    )
]


class DeferredModule(ModuleType):
    """Stands in for a module of functions; their first call imports the module."""

    _lock = Lock()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """Return a function that calls the module's own."""
        if name.startswith("__"):  # what the import system looks for
            raise AttributeError(name)

        def call(*arguments: Any, **named: Any) -> Any:
            return getattr(self._load(), name)(*arguments, **named)

        return call

    def _load(self) -> ModuleType:
        with self._lock:
            if sys.modules.get(self.__name__) is self:
                del sys.modules[self.__name__]
            return import_module(self.__name__)


@contextmanager
def hidden(*packages: str) -> Iterator[None]:
    """Make packages look absent to those that only use them if they are installed."""
    absent = [package for package in packages if package not in sys.modules]
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]  # PEP 328
    try:
        yield
    finally:
        for package in absent:
            del sys.modules[package]


for _name in ATTESTATION:
    sys.modules.setdefault(_name, DeferredModule(_name))
with hidden("rich"):  # tracebacks in the log are JSON, or in Python's own format
    import structlog  # noqa: F401
