"""Reads rows of the queue that were written before rows were signed.

They are Huey's pickles. A pickle is a program, so none is ever run: this module parses
only the few instructions in Huey's own rows, and knows only the names of plain types.
Rows with anything else are rejected.
"""

import pickletools
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any

from huey.registry import Message

from bulwark.jobs.rows import RowRefusedError

START = b"\x80"  # the beginning of each unsigned row, and of no signed one
TYPES: dict[tuple[str, str], Callable[..., Any]] = {
    ("huey.registry", "Message"): Message,
    ("datetime", "datetime"): datetime,
    ("datetime", "date"): date,
    ("datetime", "time"): time,
    ("datetime", "timedelta"): timedelta,
    ("datetime", "timezone"): timezone,
    ("decimal", "Decimal"): Decimal,
    ("builtins", "set"): set,
    ("builtins", "frozenset"): frozenset,
}
UUID = ("uuid", "UUID")
PUSHED = frozenset(
    """
    BININT BININT1 BININT2 LONG1 LONG4 BINFLOAT SHORT_BINUNICODE BINUNICODE BINUNICODE8
    SHORT_BINBYTES BINBYTES BINBYTES8
    """.split()  # noqa: SIM905  as words are read
)
EMPTY: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
    "EMPTY_TUPLE": tuple,
}


class _Mark:
    """The beginning of a collection's items on the stack."""


@dataclass(frozen=True)
class _Name:
    """A type that a row names; nothing is imported."""

    module: str
    name: str


@dataclass
class _Reader:
    """The stack and the memory for one row."""

    stack: list[Any] = field(default_factory=list)
    memory: list[Any] = field(default_factory=list)

    def read(self, data: bytes) -> Any:
        for code, argument, _ in pickletools.genops(data):
            name = code.name
            if name in ("PROTO", "FRAME"):
                continue
            if name == "STOP":
                (value,) = self.stack
                return value
            if name in PUSHED:
                self.stack.append(argument)
            elif name in EMPTY:
                self.stack.append(EMPTY[name]())
            else:
                step = getattr(self, f"_{name.lower()}", None)
                if step is None:
                    raise ValueError(name)
                step(argument)
        raise ValueError("no end")

    def _mark(self, _: object) -> None:
        self.stack.append(_Mark)

    def _above_mark(self) -> list[Any]:
        at = len(self.stack) - 1 - self.stack[::-1].index(_Mark)
        items = self.stack[at + 1 :]
        del self.stack[at:]
        return items

    def _memoize(self, _: object) -> None:
        self.memory.append(self.stack[-1])

    def _binget(self, at: int) -> None:
        found = self.memory[at]
        if isinstance(found, list | dict | set | frozenset | tuple):
            # A short row of nested references could expand to an enormous value.
            raise ValueError("a collection is there twice")  # noqa: TRY004
        self.stack.append(found)

    _long_binget = _binget

    def _append(self, _: object) -> None:
        item = self.stack.pop()
        list.append(self.stack[-1], item)

    def _appends(self, _: object) -> None:
        items = self._above_mark()
        list.extend(self.stack[-1], items)

    def _additems(self, _: object) -> None:
        items = self._above_mark()
        set.update(self.stack[-1], items)

    def _frozenset(self, _: object) -> None:
        self.stack.append(frozenset(self._above_mark()))

    def _setitem(self, _: object) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        dict.__setitem__(self.stack[-1], key, value)

    def _setitems(self, _: object) -> None:
        items = self._above_mark()
        dict.update(self.stack[-1], zip(items[::2], items[1::2], strict=True))

    def _tuple(self, _: object) -> None:
        self.stack.append(tuple(self._above_mark()))

    def _last(self, count: int) -> None:
        items = tuple(self.stack[-count:])
        del self.stack[-count:]
        self.stack.append(items)

    def _tuple1(self, _: object) -> None:
        self._last(1)

    def _tuple2(self, _: object) -> None:
        self._last(2)

    def _tuple3(self, _: object) -> None:
        self._last(3)

    def _stack_global(self, _: object) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.stack.append(_Name(module, name))

    def _reduce(self, _: object) -> None:
        arguments, named = self.stack.pop(), self.stack.pop()
        if (named.module, named.name) == UUID and not arguments:
            self.stack.append(named)  # its number follows
        else:
            self.stack.append(TYPES[named.module, named.name](*arguments))

    _newobj = _reduce

    def _build(self, _: object) -> None:
        state, named = self.stack.pop(), self.stack.pop()
        if (named.module, named.name) != UUID:
            raise ValueError("a state")
        self.stack.append(uuid.UUID(int=state["int"]))


def read(data: bytes) -> Any:
    """Return the data of an unsigned row.

    Raises:
        RowRefusedError: it contains more than plain values.
    """
    try:
        return _Reader().read(data)
    except Exception:  # noqa: BLE001  any error means that Huey did not write it
        raise RowRefusedError("it is not signed") from None
