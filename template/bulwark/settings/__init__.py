"""Settings: `init_app` loads them, and `current` returns those of the base."""

import dataclasses
import difflib
import os
import re
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from flask import Flask, current_app

from bulwark.settings import safety
from bulwark.settings.base import Config
from bulwark.settings.environments import ENVIRONMENTS, Development, Production, Testing
from bulwark.settings.fields import Problem, variable
from bulwark.settings.sources import Sources

__all__ = [
    "Config",
    "ConfigurationError",
    "Development",
    "Production",
    "Testing",
    "current",
    "init_app",
    "load",
]


class ConfigurationError(Exception):
    """The service must not start; `problems` lists every reason."""

    def __init__(self, environment: str, problems: Iterable[Problem]) -> None:
        self.problems = list(problems)
        noun = "problem" if len(self.problems) == 1 else "problems"
        super().__init__(
            f"{len(self.problems)} {noun} in the {environment} settings,"
            " so the service did not start:\n" + "\n".join(map(str, self.problems))
        )


def load(root: Path, own: type[Any] | None = None) -> tuple[Config, Any]:
    """Read the settings of the base and, if given, the dataclass `own` of the app.

    Args:
        root: the folder that contains `service.toml`, `.env` and `instance/`.
        own: the app's own settings, each declared with `setting`.

    Raises:
        ConfigurationError: the service must not start; it lists every reason.
    """
    cls = _environment()
    strict = cls is not Testing
    sources = Sources(_secrets_dir(), _env_file(root, cls))
    config = sources.read(cls, cls.defaults(root, _service(root)), strict=strict)
    settings = sources.read(own, {}, strict=strict) if own else None
    problems = [
        *sources.problems,
        *_bad_names(sources, _names(cls), _names(own) if own else set()),
        *(safety.problems(config) if cls is Production else ()),
    ]
    if problems:
        raise ConfigurationError(cls.environment, problems)
    return config, settings


def _environment() -> type[Config]:
    name = os.environ.get("APP_ENV", "")
    if name in ENVIRONMENTS:
        return ENVIRONMENTS[name]
    problem = Problem(
        f"APP_ENV is {name!r}" if name else "APP_ENV is not set",
        "it decides which settings are read, and how strict the checks are",
        f"set it to one of {', '.join(ENVIRONMENTS)};"
        " bin/dev, bin/test and bin/flask do it for you",
    )
    raise ConfigurationError("unknown", [problem])


def _names(cls: type[Any]) -> set[str]:
    return {variable(declared.name) for declared in dataclasses.fields(cls)}


def _bad_names(sources: Sources, base: set[str], own: set[str]) -> Iterator[Problem]:
    """Yield the names that are unknown, and those that are declared twice."""
    yield from _unknown(sources, base | own | {"APP_ENV", "APP_SECRETS_DIR"})
    yield from (_taken(name) for name in sorted(base & own))


def _service(root: Path) -> dict[str, Any]:
    path = root / "service.toml"
    answers = tomllib.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    answers.pop("edge", None)  # deploy/ reads it
    return answers | dict(_versions(root))


def _versions(root: Path) -> Iterator[tuple[str, str]]:
    """Yield the service's version, and the template release that generated it."""
    for name, file, line in (
        ("version", "pyproject.toml", r'^version = "(.+)"$'),
        ("template", ".copier-answers.yml", r"^_commit: *'?(.+?)'?$"),
    ):
        path = root / file
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        found = re.search(line, text, re.MULTILINE)
        yield name, found[1] if found else "unknown"


def _secrets_dir() -> Path:
    """Return the secrets folder: one that is set, systemd's, or Docker's."""
    named = os.environ.get("APP_SECRETS_DIR") or os.environ.get("CREDENTIALS_DIRECTORY")
    return Path(named or "/run/secrets")


def _env_file(root: Path, cls: type[Config]) -> Path:
    return Path(os.environ.get("ENV_FILE") or root / cls.default_env_file)


def _unknown(sources: Sources, known: Iterable[str]) -> Iterator[Problem]:
    for name, place in dict(sources.names()).items():
        if name in known:
            continue
        near = difflib.get_close_matches(name, known, n=1)
        yield Problem(
            f"{name} in {place} is not a setting",
            "a misspelled setting would silently have no effect",
            f"did you mean {near[0]}?" if near else "remove it, or declare it in app/",
        )


def _taken(name: str) -> Problem:
    return Problem(
        f"{name} is declared by app/ and by bulwark/",
        "one of the two would read the other's value",
        "rename the field in app/settings.py",
    )


def init_app(app: Flask, own: type[Any] | None) -> tuple[Config, Any]:
    """Load the settings into `app.config`: each field under its name in capitals.

    Return the base's settings and, if there are any, the app's.
    """
    config, settings = load(Path(app.root_path).parent, own)
    for source in filter(None, (config, settings)):
        for declared in dataclasses.fields(source):
            app.config[declared.name.upper()] = getattr(source, declared.name)
    app.config["SECRET_KEY_FALLBACKS"] = list(config.secret_key_fallbacks)
    app.testing = config.environment == "testing"
    app.extensions["bulwark"] = config
    return config, settings


def current() -> Config:
    """Return the settings of the running app."""
    config: Config = current_app.extensions["bulwark"]
    return config
