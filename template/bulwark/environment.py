"""Where settings come from: the environment, then a secrets folder, then a file."""

import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from decouple import Config as Decouple

PREFIX = "APP_"
# Anything else may be a part of a secret that was broken in two, and is not shown.
NAME = re.compile("[A-Z_][A-Z0-9_]*")

T = TypeVar("T")


@dataclass(frozen=True)
class Problem:
    """One reason not to start: what is wrong, why it matters, how to mend it."""

    what: str
    why: str
    mend: str

    def __str__(self) -> str:
        return f"- {self.what}\n    why:  {self.why}\n    mend: {self.mend}"


class UnusableError(ValueError):
    """What a cast refuses; its words hold nothing of the value, which may be secret."""


def setting(
    doc: str,
    *,
    default: Any = "",
    cast: Callable[[str], Any] = str,
    required: bool = False,
    secret: bool = False,
    mend: str = "",
) -> Any:
    """Declare one setting as the field of a dataclass.

    The field `retry_days` is read from `APP_RETRY_DAYS`. `cast` turns the text into
    the value; the message of a `ValueError` that it raises is shown at the boot. A
    `required` setting must not be empty, except in tests; `mend` says how to get one.
    A `secret` one is kept out of `repr`, and taken out of every line of the log; if
    its cast fails, only the message of an `UnusableError` is shown.
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
    """Return the environment variable that a field is read from."""
    return PREFIX + field_name.upper()


def one_of(*choices: str) -> Callable[[str], str]:
    """Return a cast that accepts these words only."""

    def cast(text: str) -> str:
        if text not in choices:
            raise ValueError(f"{text!r} is not one of {', '.join(choices)}")
        return text

    return cast


def whole_number(least: int, most: int) -> Callable[[str], int]:
    """Return a cast that accepts a whole number from `least` to `most`."""

    def cast(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not least <= int(text) <= most:
            raise ValueError(f"{text!r} is not a whole number from {least} to {most}")
        return int(text)

    return cast


def yes_or_no(text: str) -> bool:
    """Read `yes` or `no`, and nothing that might mean either."""
    if text not in ("yes", "no"):
        raise ValueError(f"{text!r} is not yes or no")
    return text == "yes"


def words(text: str) -> tuple[str, ...]:
    """Split a comma-separated list."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


class Sources:
    """The three places of settings, read through python-decouple.

    decouple's own search walks up the folders and prefers `settings.ini`; here the
    places are named, and nothing else is read.
    """

    def __init__(self, secrets_dir: Path, env_file: Path) -> None:
        self.problems: list[Problem] = []
        self.secrets_dir = secrets_dir
        self.env_file = env_file
        self._file = dict(self._read_file())
        self._secrets = dict(self._read_secrets())
        # decouple asks the environment before it asks this mapping.
        self._decouple = Decouple({**self._file, **self._secrets})

    def get(self, name: str, cast: Callable[[str], T]) -> T:
        """Return a setting's value.

        Raises:
            KeyError: no place has it.
            ValueError: `cast` refuses it.
        """
        if name not in {known for known, _ in self.names()}:
            raise KeyError(name)
        value: T = self._decouple.get(name, cast=lambda text: cast(_of_utf8(text)))
        return value

    def names(self) -> Iterator[tuple[str, str]]:
        """Yield each name that is set, with the place that sets it."""
        own = (name for name in os.environ if name.startswith(PREFIX))
        yield from ((name, "the environment") for name in own)
        yield from ((name, str(self.secrets_dir)) for name in self._secrets)
        yield from ((name, str(self.env_file)) for name in self._file)

    def read(self, cls: type[T], defaults: Mapping[str, Any], *, strict: bool) -> T:
        """Build the dataclass `cls` from here, then `defaults`, then its own defaults.

        What can't be read is added to `problems`, and what is missing if `strict`.
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
                fault = error if shown else "its form is not what is expected"
                self.problems.append(
                    Problem(
                        f"{name} can't be used: {fault}",
                        meta["doc"],
                        f"give {name} a value of that form",
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
                        "a line that is not understood may be a setting that is lost",
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
        """Return a file's text; one in another encoding is a problem, by its name."""
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
                "what it sets would be lost",
                "save it as UTF-8, readable by the account that runs the service",
            )
        )
        return None

    def _refuse_if_others_can_read(self, path: Path) -> None:
        if path.stat().st_mode & stat.S_IRWXO:
            self.problems.append(
                Problem(
                    f"{path} can be read by every user of this machine",
                    "it holds secrets",
                    f"chmod o= {path}",
                )
            )


def _of_utf8(text: str) -> str:
    """Refuse what Python has put in place of bytes of the environment."""
    if re.search("[\ud800-\udfff]", text):
        raise UnusableError("it holds bytes that are not UTF-8")
    return text


def _unquoted(value: str) -> str:
    quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
    return value[1:-1] if quoted else value
