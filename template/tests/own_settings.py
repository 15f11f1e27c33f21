"""Lets tests of the base start what your settings would stop, as none has a value."""

import pytest

from bulwark import settings
from bulwark.settings.sources import Sources


def leave_out_own_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let your required settings be empty, as in all tests; not the base's."""
    read = Sources.read

    def read_strictly_only_the_base(self, cls, defaults, *, strict):
        strict = strict and issubclass(cls, settings.Config)
        return read(self, cls, defaults, strict=strict)

    monkeypatch.setattr(Sources, "read", read_strictly_only_the_base)
