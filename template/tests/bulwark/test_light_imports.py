"""Parts of packages that are left out, or imported when they are called."""

import importlib
import sys
from pathlib import Path

import pytest
import webauthn

from bulwark.light_imports import ATTESTATION, DeferredModule, hidden

MODULE = "colorsys"  # a small one that nothing else needs


def test_each_deferred_module_exists():
    folder = Path(webauthn.__file__).parents[1]
    for name in ATTESTATION:
        assert folder.joinpath(*name.split(".")).with_suffix(".py").is_file(), name


def test_a_deferred_module_is_imported_by_its_first_call(
    monkeypatch: pytest.MonkeyPatch,
):
    deferred = DeferredModule(MODULE)
    monkeypatch.setitem(sys.modules, MODULE, deferred)
    from colorsys import rgb_to_hsv

    assert sys.modules[MODULE] is deferred
    for _ in range(2):
        assert rgb_to_hsv(1, 0, 0) == (0, 1, 1)
    assert sys.modules[MODULE] is not deferred


def test_a_function_that_a_deferred_module_lacks_is_named(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setitem(sys.modules, MODULE, DeferredModule(MODULE))
    with pytest.raises(AttributeError, match="rgb_to_nothing"):
        importlib.import_module(MODULE).rgb_to_nothing()


def test_a_hidden_package_is_absent_for_a_moment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    with hidden(MODULE), pytest.raises(ImportError):
        importlib.import_module(MODULE)
    assert importlib.import_module(MODULE)


def test_a_package_that_is_imported_already_is_not_hidden():
    with hidden("sys", "pytest"):
        assert importlib.import_module("pytest") is pytest
