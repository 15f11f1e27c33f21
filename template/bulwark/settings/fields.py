"""How a dataclass declares settings, and the casts from their texts."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

PREFIX = "APP_"


@dataclass(frozen=True)
class Problem:
    """A reason not to start: what is wrong, why it matters, how to fix it."""

    what: str
    why: str
    fix: str

    def __str__(self) -> str:
        return f"- {self.what}\n    why: {self.why}\n    fix: {self.fix}"


class UnusableError(ValueError):
    """An error of a cast that is always shown, so it must not contain a secret."""


def setting(
    doc: str,
    *,
    default: Any = "",
    cast: Callable[[str], Any] = str,
    required: bool = False,
    secret: bool = False,
    fix: str = "",
) -> Any:
    """Declare a setting as a field of a dataclass.

    The field `retry_days` is read from `APP_RETRY_DAYS`. `cast` converts the text to
    the value; if it raises a `ValueError`, the message is shown at startup. A
    `required` setting must not be empty, except in tests; `fix` explains how to get
    a value. A `secret` setting is excluded from `repr` and redacted in the log; if its
    cast fails, the message is shown only if it is from an `UnusableError`.
    """
    metadata = {
        "doc": doc,
        "cast": cast,
        "required": required,
        "secret": secret,
        "fix": fix,
    }
    return field(default=default, metadata=metadata, repr=not secret)


def variable(field_name: str) -> str:
    """Return the environment variable of a field."""
    return PREFIX + field_name.upper()


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


def absolute_path(text: str) -> str:
    """Check that a text is an absolute path, or empty."""
    if text and not text.startswith("/"):
        raise ValueError(f"{text!r} is not a path that begins with /")
    return text


def words(text: str) -> tuple[str, ...]:
    """Split a comma-separated list.

    decouple's `Csv` parses shell quotes and backslashes, and fails on a lone quote.
    """
    return tuple(word.strip() for word in text.split(",") if word.strip())
