"""Copier without its repetitions: a third of the processor time.

Copier asks git for `core.fileMode` after each file. It renders and compiles each part
of each path, and each time the name of the answers file, even without an expression.
What it writes is the same: test_copy.py and test_update_command.py compare it with
unmodified Copier. Processes that tests start with IN_PROCESSES are quick as well.
"""

import functools
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from copier import _template
from copier._main import Worker
from copier._vcs import clone as _clone
from jinja2 import Environment

# Has Python run quick/sitecustomize.py.
IN_PROCESSES = {"PYTHONPATH": str(Path(__file__).resolve().with_name("quick"))}

_render_string = Worker._render_string
_render_path = Worker._render_path
_answers_relpath: Any = Worker.answers_relpath
_sync_executable_bit = Worker._sync_git_index_executable_bit
_compile: Any = Environment.compile

_compiled: dict[tuple[object, ...], Any] = {}


def _compile_once(environment: Environment, *source: object) -> Any:
    """Share what is compiled between environments of the same syntax."""
    key = (type(environment), environment.lexer, *environment.extensions, *source)
    if key not in _compiled:
        _compiled[key] = _compile(environment, *source)
    return _compiled[key]


def _render_expressions(
    worker: Worker, string: str, extra_context: dict[str, Any] | None = None
) -> str:
    return _render_string(worker, string, extra_context) if "{" in string else string


def _render_plain_path(
    worker: Worker, relpath: Path
) -> Iterable[tuple[Path, dict[str, Any] | None]]:
    """Take the path of a file that is no template as it is, unless one replaces it."""
    suffix = worker.template.templates_suffix
    special = "{" in str(relpath) or relpath.name.endswith(suffix)
    if special or str(worker.answers_relpath) in relpath.parts:
        return _render_path(worker, relpath)
    roots = (worker.template_copy_root, worker.template.local_abspath)
    if any((root / f"{relpath}{suffix}").exists() for root in roots):
        return ()
    return ((relpath, {}),)


def _plain_answers_relpath(worker: Worker) -> Path:
    path = worker.answers_file or worker.template.answers_relpath
    if "{" in str(path):
        return Path(_answers_relpath.fget(worker))
    return Path(path)


def _sync_where_git_ignores_modes(worker: Worker, path: Path, mode: int) -> None:
    """Ask once for `core.fileMode`, not after each file."""
    known = vars(worker)
    if "git_ignores_modes" not in known:
        asked = ("git", "config", "--type=bool", "--get", "core.fileMode")
        at = worker.subproject.local_abspath
        done = subprocess.run(asked, cwd=at, capture_output=True, check=False)
        known["git_ignores_modes"] = done.stdout.strip() == b"false"
    if known["git_ignores_modes"]:
        _sync_executable_bit(worker, path, mode)


def install() -> None:
    """Use the quick way from now on."""
    Environment.compile = _compile_once  # type: ignore[assignment, method-assign]
    Worker._render_string = _render_expressions  # type: ignore[assignment]
    Worker._render_path = _render_plain_path  # type: ignore[assignment, method-assign]
    Worker.answers_relpath = property(_plain_answers_relpath)  # type: ignore[assignment, method-assign]
    Worker._sync_git_index_executable_bit = _sync_where_git_ignores_modes  # type: ignore[assignment, method-assign]


def keep_clones(folder: Path) -> None:
    """Clone each state of a template once into a folder, which the caller removes.

    A state is all that git's references name. With uncommitted work there is none.
    """

    @functools.cache
    def clone_once(url: str, ref: str, _state: bytes) -> str:
        folder.mkdir(exist_ok=True)
        return _clone(url, ref, str(folder / str(len(list(folder.iterdir())))))

    def clone(url: str, ref: str = "HEAD", location: str | None = None) -> str:
        if ref == "HEAD" or not Path(url).is_dir():
            return _clone(url, ref, location)
        asked = ("git", "show-ref", "--head")
        done = subprocess.run(asked, cwd=url, capture_output=True, check=False)
        return clone_once(url, ref, done.stdout)

    _template.clone = clone  # type: ignore[attr-defined]
