"""Your settings, each read from APP_<NAME>, and hosts that your pages load from."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Declare a setting as a field with `bulwark.setting`."""


CSP_SOURCES: dict[str, list[str]] = {}
