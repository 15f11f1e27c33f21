"""Sources of settings: the environment, then a secrets folder, then a file."""

import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from decouple import Config as Decouple

PREFIX = "APP_"
# Any other name may be part of a secret that was split in two, and is not shown.
NAME = re.compile("[A-Z_][A-Z0-9_]*")

T = TypeVar("T")


@dataclass(frozen=True)
class Problem:
    """A reason not to start: what is wrong, why it matters, how to fix it."""

    what: str
    why: str
    mend: str

    def __str__(self) -> str:
        return f"- {self.what}\n    why: {self.why}\n    fix: {self.mend}"


class UnusableError(ValueError):
    """An error of a cast that is always shown, so it must not contain a secret."""


def setting(
    doc: str,
    *,
    default: Any = "",
    cast: Callable[[str], Any] = str,
    required: bool = False,
    secret: bool = False,
    mend: str = "",
) -> Any:
    """Declare a setting as a field of a dataclass.

    The field `retry_days` is read from `APP_RETRY_DAYS`. `cast` converts the text to
    the value; if it raises a `ValueError`, the message is shown at startup. A
    `required` setting must not be empty, except in tests; `mend` explains how to get
    a value. A `secret` setting is excluded from `repr` and redacted in the log; if its
    cast fails, the message is shown only if it is from an `UnusableError`.
    """
    metadata = {
        "doc": doc,
        "cast": cast,
        "required": required,
        "secret": secret,
        "mend": mend,
    }
    return field(default=default, metadata=metadata, repr=not secret)


def variable(field_name: str) -> str:
    """Return the environment variable of a field."""
    return PREFIX + field_name.upper()


def one_of(*choices: str) -> Callable[[str], str]:
    """Return a cast that accepts only these values."""

    def cast(text: str) -> str:
        if text not in choices:
            raise ValueError(f"{text!r} is not one of {', '.join(choices)}")
        return text

    return cast


def whole_number(least: int, most: int) -> Callable[[str], int]:
    """Return a cast that accepts whole numbers from `least` to `most`."""

    def cast(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not least <= int(text) <= most:
            raise ValueError(f"{text!r} is not a whole number from {least} to {most}")
        return int(text)

    return cast


def yes_or_no(text: str) -> bool:
    """Parse `yes` or `no`, and reject anything else."""
    if text not in ("yes", "no"):
        raise ValueError(f"{text!r} is not yes or no")
    return text == "yes"


def words(text: str) -> tuple[str, ...]:
    """Split a comma-separated list."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


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
                shown = isinstance(error, UnusableError) or not meta["secret"]
                fault = error if shown else "it does not have the expected form"
                self.problems.append(
                    Problem(
                        f"{name} can't be used: {fault}",
                        meta["doc"],
                        f"set {name} to a valid value",
                    )
                )
                continue
            if strict and meta["required"] and not values[declared.name]:
                self.problems.append(
                    Problem(
                        f"{name} is missing",
                        meta["doc"],
                        meta["mend"] or f"set {name}; .env.example shows how",
                    )
                )
        return cls(**values)

    def _read_file(self) -> Iterator[tuple[str, str]]:
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


def _of_utf8(text: str) -> str:
    """Reject the surrogates that Python uses for undecodable bytes."""
    if re.search("[\ud800-\udfff]", text):
        raise UnusableError("it contains bytes that are not UTF-8")
    return text


def _unquoted(value: str) -> str:
    quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
    return value[1:-1] if quoted else value
