"""`flask new`: checks everything, then writes all files or none."""

import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import click
from flask import current_app
from flask.cli import with_appcontext

from bulwark import settings
from bulwark.ops.new import edits, fields, names, sources
from bulwark.ops.new.fields import Field
from bulwark.ops.new.names import Name, RefusedError

NOT_MIGRATED = (
    "The database doesn't match your models yet. Finish that first:\n"
    '    bin/flask db migrate -m "…"\n'
    "    bin/flask prepare"
)
NO_PYDANTIC = (
    "An API needs pydantic. Add this line to `dependencies` in pyproject.toml, and run"
    ' bin/setup:\n    "pydantic>=2.12",\nOr leave out the API: --no-api'
)


@click.command("new")
@click.argument("name")
@click.argument("fields", metavar="[FIELD:KIND] …", nargs=-1)
@click.option("--plural", help="The plural, if it isn't a regular one: people.")
@click.option("--no-api", is_flag=True, help="Write pages only.")
@with_appcontext
def new(name: str, fields: tuple[str, ...], plural: str | None, no_api: bool) -> None:
    """Write a model with its migration, pages, an API and tests.

    NAME is one of the things that users keep, such as order_item. A FIELD is one of
    string, text, integer, boolean and date; a ? behind it lets it be empty:

    \b
        bin/flask new book title author pages:integer read:boolean bought:date?
    """
    try:
        _write_all(name, fields, plural, with_api=not no_api)
    except RefusedError as error:
        raise click.ClickException(f"{error}\nNothing was written.") from None


def _write_all(
    text: str, texts: Sequence[str], plural: str | None, *, with_api: bool
) -> None:
    if settings.current().environment != "development":
        raise RefusedError("`flask new` writes code in development only.")
    name = names.parse(text, plural)
    chosen = fields.parse_all(texts)
    names.check_free(current_app, name)
    root = Path(current_app.root_path).parent
    files = _files(root, name, chosen, with_api=with_api)
    if with_api and not _declares_pydantic(root):
        raise RefusedError(NO_PYDANTIC)
    if _run("bin/flask", "db", "check", root=root).returncode:
        raise RefusedError(NOT_MIGRATED)
    with _all_or_none(root, files):
        _format(root, files)
        _must_run(root, "bin/flask", "db", "migrate", "-m", f"add {name.words}")
        _must_run(root, "bin/flask", "access", "--write")
        _must_run(root, "bin/flask", "prepare")
    for path in sorted(files):
        click.echo(f"  {path}")
    click.echo(
        "  app/migrations/, app/access.txt\n"
        f"Start bin/dev, sign in and open /{name.path}/. Then make the code yours."
    )


def _files(
    root: Path, name: Name, chosen: Sequence[Field], *, with_api: bool
) -> dict[str, str]:
    """Return the text of each file that is new or changed."""

    def read(path: str) -> str:
        file = root / path
        return file.read_text(encoding="utf-8") if file.exists() else ""

    models, app = "app/models.py", "app/__init__.py"
    navigation = "app/templates/navigation.html"
    changed = {
        models: edits.model(read(models), *sources.model(name, chosen)),
        app: edits.app(read(app), name, with_api=with_api),
        navigation: edits.navigation(read(navigation), name),
    }
    if with_api:
        permissions = "app/permissions.py"
        changed[permissions] = edits.permissions(read(permissions), name)
    return changed | sources.new_files(name, chosen, with_api=with_api)


def _declares_pydantic(root: Path) -> bool:
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    needed = project["project"]["dependencies"]
    return any(package.lower().startswith("pydantic") for package in needed)


@contextmanager
def _all_or_none(root: Path, files: Mapping[str, str]) -> Iterator[None]:
    """Write files; if what follows fails, restore what was there before."""
    kept = ("app/access.txt", "bulwark/access.txt")
    paths = [root / path for path in (*files, *kept)]
    before = {path: path.read_bytes() if path.exists() else None for path in paths}
    migrations = set((root / "app/migrations").glob("*.py"))
    try:
        for name, text in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text, encoding="utf-8")
        yield
    except BaseException:
        for path, content in before.items():
            if content is None:
                path.unlink(missing_ok=True)
            else:
                path.write_bytes(content)
        for path in set((root / "app/migrations").glob("*.py")) - migrations:
            path.unlink()
        for folder in {path.parent for path in paths if not any(path.parent.iterdir())}:
            folder.rmdir()
        raise


def _format(root: Path, files: Mapping[str, str]) -> None:
    """Sort the imports of the new code, and lay it out as `bin/ci` expects."""
    python = [path for path in files if path.endswith(".py")]
    ruff = str(Path(sys.executable).parent / "ruff")
    _must_run(root, ruff, "check", "--select=I", "--fix", "--quiet", *python)
    _must_run(root, ruff, "format", "--quiet", *python)


def _must_run(root: Path, *command: str) -> None:
    done = _run(*command, root=root)
    if done.returncode:
        raise RefusedError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")


def _run(*command: str, root: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603
        command, cwd=root, env=os.environ, capture_output=True, text=True, check=False
    )
