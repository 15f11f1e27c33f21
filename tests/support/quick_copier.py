"""Copier in this process with less of the same work: half the processor time.

Copier asks git for `core.fileMode` after each file, renders each part of a path that
holds no expression, and compiles the name of a folder once for each file in it. What it
writes is the same, and test_copy.py compares: processes that tests start have Copier
as it is.
"""

import functools
from typing import Any

from copier._main import Worker
from jinja2 import Environment

_render_string = Worker._render_string


def _render_expressions(
    worker: Worker, string: str, extra_context: dict[str, Any] | None = None
) -> str:
    return _render_string(worker, string, extra_context) if "{" in string else string


def install() -> None:
    """Use the quick way from now on."""
    Environment.compile = functools.cache(Environment.compile)  # type: ignore[assignment, method-assign]
    Worker._render_string = _render_expressions  # type: ignore[assignment]
    # It acts where core.fileMode is false, which no git in this process has.
    Worker._sync_git_index_executable_bit = lambda *_: None  # type: ignore[method-assign]
