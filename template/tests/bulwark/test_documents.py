"""docs/asvs.md: its limits, sessions and keys are those of the code."""

from dataclasses import fields
from datetime import timedelta

import pytest

from bulwark import settings
from bulwark.identity import throttling
from bulwark.settings.fields import variable
from tests.conftest import ROOT


def section(heading: str) -> str:
    """Return what stands under a heading."""
    page = (ROOT / "docs" / "asvs.md").read_text(encoding="utf-8")
    return page.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


@pytest.mark.parametrize("name", sorted(throttling.LIMITS))
def test_each_limit_is_documented_as_it_is(name: str):
    """OWASP ASVS 5.0, 2.1.3 and 6.1.1."""
    rule, _ = throttling.LIMITS[name]
    words = rule.replace(" per ", " a ").replace(" a hour", " an hour")
    assert f"{words.replace(';', ',')} for one network" in section("Limits")


def test_tries_for_one_account_are_documented_as_they_are():
    limits, minutes = section("Limits"), throttling.WINDOW // timedelta(minutes=1)
    for secret in throttling.SECRETS:
        assert f"{secret.tries} in {minutes} minutes for one account" in limits
    assert f"{throttling.IN_A_ROW} wrong ones in a row" in limits


def test_the_life_of_sessions_is_documented_as_it_is():
    """OWASP ASVS 5.0, 7.1.2."""
    defaults = {field.name: field.default for field in fields(settings.Config)}
    for name in ("session_idle_minutes", "session_hours"):
        assert f"`{variable(name)}` ({defaults[name]})" in section("Sessions")


def test_each_secret_setting_is_in_the_inventory_of_keys():
    """OWASP ASVS 5.0, 11.1.2."""
    keys = section("Keys")
    secret = [variable(f.name) for f in fields(settings.Config) if f.metadata["secret"]]
    assert [name for name in secret if f"`{name}`" not in keys] == []
