"""The steps of rotating a key in an env file, for bin/secrets. Standard library only.

add     a new value that the service accepts but does not use yet
use     the new value takes the first place; the former one is still accepted
remove  the former value is removed

All processes must be restarted after each step: each of them must accept a value before
another one uses it.
"""

import re
from collections.abc import Callable

STEPS = ("add", "use", "remove")
# Names in `flask keys`, and their settings.
ENCRYPTION = "APP_ENCRYPTION_KEYS"
NAMES = {
    "encryption": ENCRYPTION,
    "signing": "APP_SECRET_KEY",
    "pepper": "APP_PASSWORD_PEPPER",
}
GENERATION = re.compile(r"gen(\d+)\.")


class RefusedError(Exception):
    """The step is not the next one; the message explains which is."""


def rotated(
    values: list[str], number: Callable[[str], int], step: str, new: str
) -> list[str]:
    """Return the values after a step; the first one is used, all are accepted.

    Args:
        values: the values before the step.
        number: returns the number of a value; it grows with each rotation.
        step: one of `STEPS`.
        new: the value to add.

    Raises:
        RefusedError: the step is not the next one.
    """
    newest = max(values, key=number)
    if step == "add":
        if len(values) > 1:
            following = "remove" if newest == values[0] else "use"
            raise RefusedError(f"a rotation has begun; its next step is `{following}`")
        return [*values, new]
    if len(values) == 1:
        raise RefusedError("there is one value; a rotation begins with `add`")
    if step == "use":
        if newest == values[0]:
            raise RefusedError("the newest value is in use; the next step is `remove`")
        return [newest, *(value for value in values if value != newest)]
    if newest != values[0]:
        raise RefusedError("the newest value is not in use; the next step is `use`")
    return [newest]


def number_of_key(part: str) -> int:
    """Return the number of an encryption key, such as 2 in `2:…`."""
    key_id = part.partition(":")[0]
    return int(key_id) if key_id.isdigit() else 0


def number_of_text(value: str) -> int:
    """Return the number of another secret: 2 in `gen2.…`; the first one has none."""
    found = GENERATION.match(value)
    return int(found[1]) if found else 1


def with_value(text: str, key: str, value: str, after: str) -> str:
    """Return the text of an env file with a new value, or with a new line for it.

    Args:
        text: the text of the file.
        key: the setting; its last line counts.
        value: "" removes the setting.
        after: the setting below whose line a new line goes.
    """
    lines = text.splitlines(keepends=True)
    found = [n for n, line in enumerate(lines) if _sets(key, line)]
    ending = "\r\n" if "\r\n" in text else "\n"
    new = [f"{key}={value}{ending}"] if value else []
    if found:
        lines[found[-1] : found[-1] + 1] = new
    else:
        place = max(n for n, line in enumerate(lines) if _sets(after, line))
        if not lines[place].endswith(("\n", "\r")):
            lines[place] += ending
        lines[place + 1 : place + 1] = new
    return "".join(lines)


def _sets(key: str, line: str) -> bool:
    return bool(re.match(rf"\s*(?:export[ \t]+)?{key}[ \t]*=", line))
