"""Sources of settings: the environment, then a secrets folder, then a file."""

import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from decouple import Config as Decouple

from bulwark.settings.fields import PREFIX, Problem, UnusableError, variable

# Any other name may be part of a secret that was split in two, and is not shown.
NAME = re.compile("[A-Z_][A-Z0-9_]*")

T = TypeVar("T")


class Sources:
    """The three sources of settings, read with python-decouple.

    decouple's own search walks up the folders and prefers `settings.ini`. Here the
    sources are fixed, and nothing else is read.
    """

    def __init__(self, secrets_dir: Path, env_file: Path) -> None:
        self.problems: list[Problem] = []
        self.secrets_dir = secrets_dir
        self.env_file = env_file
        self._file = dict(self._read_file())
        self._secrets = dict(self._read_secrets())
        # decouple checks the environment before this mapping.
        self._decouple = Decouple({**self._file, **self._secrets})

    def get(self, name: str, cast: Callable[[str], T]) -> T:
        """Return a setting's value.

        Raises:
            KeyError: no source sets it.
            ValueError: `cast` rejects it.
        """
        if name not in {known for known, _ in self.names()}:
            raise KeyError(name)
        value: T = self._decouple.get(name, cast=lambda text: cast(_of_utf8(text)))
        return value

    def names(self) -> Iterator[tuple[str, str]]:
        """Yield each name that is set, with its source."""
        own = (name for name in os.environ if name.startswith(PREFIX))
        yield from ((name, "the environment") for name in own)
        yield from ((name, str(self.secrets_dir)) for name in self._secrets)
        yield from ((name, str(self.env_file)) for name in self._file)

    def read(self, cls: type[T], defaults: Mapping[str, Any], *, strict: bool) -> T:
        """Build the dataclass `cls` from the sources, `defaults` and its own defaults.

        Invalid settings are added to `problems`, and missing ones if `strict`.
        """
        values = dict(defaults)
        for declared in fields(cls):  # type: ignore[arg-type]
            meta = declared.metadata
            name = variable(declared.name)
            try:
                values[declared.name] = self.get(name, meta["cast"])
            except KeyError:
                values.setdefault(declared.name, declared.default)
            except ValueError as error:
                self.problems.append(_unusable(name, meta, error))
                continue
            if strict and meta["required"] and not values[declared.name]:
                self.problems.append(_missing(name, meta))
        return cls(**values)

    def _read_file(self) -> Iterator[tuple[str, str]]:
        """Yield the settings in the file; decouple would ignore malformed lines."""
        if not self.env_file.is_file():
            return
        self._refuse_if_others_can_read(self.env_file)
        lines = re.split(r"\r\n|\r|\n", self._text_of(self.env_file) or "")
        for number, line in enumerate(map(str.strip, lines), start=1):
            name, equals, value = line.partition("=")
            if not line or line.startswith("#"):
                continue
            if not equals or not NAME.fullmatch(name):
                self.problems.append(
                    Problem(
                        f"{self.env_file}, line {number}, is not NAME=value",
                        "the line may be a setting, which would be ignored",
                        "write NAME=value, without `export`, or start it with #",
                    )
                )
                continue
            yield name, _unquoted(value)

    def _read_secrets(self) -> Iterator[tuple[str, str]]:
        if not self.secrets_dir.is_dir():
            return
        for path in sorted(self.secrets_dir.iterdir()):
            name = path.name.upper()
            if path.is_file() and name.startswith(PREFIX):
                self._refuse_if_others_can_read(path)
                text = self._text_of(path)
                if text is not None:
                    yield name, text.rstrip("\r\n")

    def _text_of(self, path: Path) -> str | None:
        """Return a file's text, or add a problem if it is not UTF-8."""
        content, fault = b"", ""
        try:
            content = path.read_bytes()
        except OSError as error:
            fault = f"can't be read: {error.strerror}"
        # ASCII in UTF-16 has a NUL in each character.
        if content.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in content:
            fault = "is UTF-16"
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError:
            fault = fault or "is not UTF-8"
        if not fault:
            return text
        self.problems.append(
            Problem(
                f"{path} {fault}",
                "its settings would be ignored",
                "save it as UTF-8, readable by the account that runs the service",
            )
        )
        return None

    def _refuse_if_others_can_read(self, path: Path) -> None:
        if path.stat().st_mode & stat.S_IRWXO:
            self.problems.append(
                Problem(
                    f"{path} can be read by every user of this machine",
                    "it contains secrets",
                    f"chmod o= {path}",
                )
            )


def _unusable(name: str, meta: Mapping[str, Any], error: ValueError) -> Problem:
    """Return the problem; the error of a secret's cast may contain the secret."""
    shown = isinstance(error, UnusableError) or not meta["secret"]
    fault = error if shown else "it does not have the expected form"
    return Problem(
        f"{name} can't be used: {fault}", meta["doc"], f"set {name} to a valid value"
    )


def _missing(name: str, meta: Mapping[str, Any]) -> Problem:
    fix = meta["fix"] or f"set {name}; .env.example shows how"
    return Problem(f"{name} is missing", meta["doc"], fix)


def _of_utf8(text: str) -> str:
    """Reject the surrogates that Python uses for undecodable bytes."""
    if re.search("[\ud800-\udfff]", text):
        raise UnusableError("it contains bytes that are not UTF-8")
    return text


def _unquoted(value: str) -> str:
    quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
    return value[1:-1] if quoted else value
