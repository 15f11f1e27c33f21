"""What `flask new` adds to files that the team has already."""

import ast
from collections.abc import Iterator

from bulwark.ops.new.names import Name, RefusedError

Places = list[tuple[int, int, str]]  # line and column (in bytes), and what goes there


def model(source: str, imports: str, cls: str) -> str:
    """Add a class and its imports to `app/models.py`."""
    bound = dict(_bound(source))
    for name, origin in _bound(imports):
        if bound.get(name, origin) != origin:
            raise RefusedError(
                f"app/models.py has another {name}, which the new model also needs."
                " Rename yours first."
            )
    return f"{_with_imports(source, imports)}{cls}"


def app(source: str, name: Name, *, with_api: bool) -> str:
    """Register the blueprints in `app/__init__.py`."""
    modules = [name.plural, *([f"{name.plural}_api"] if with_api else [])]
    call = _set_up(source)
    registered = [f"app.register_blueprint({name.plural}.blueprint)"]
    if with_api:
        registered.append(f"app.register_blueprint({name.plural}_api.api)")
    indent = " " * call.col_offset
    lines = "".join(f"{line}\n{indent}" for line in registered)
    places = [(call.lineno, call.col_offset, lines)]
    keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    granted = keywords.get("everyone", "")
    if with_api and granted not in ("", "permissions.EVERYONE"):
        raise RefusedError(
            f"app/__init__.py passes `everyone={granted}`. Pass permissions.EVERYONE,"
            " to which the permissions of the API are added, or leave out the API:"
            " --no-api"
        )
    if with_api and not granted:
        last = (*call.args, *(keyword.value for keyword in call.keywords))[-1]
        after = last.end_lineno or 0, last.end_col_offset or 0
        places.append((*after, ", everyone=permissions.EVERYONE"))
        modules.append("permissions")
    changed = _insert(source, places)
    return _with_imports(changed, f"from app import {', '.join(modules)}\n")


def permissions(source: str, name: Name) -> str:
    """Add the permissions of the API to `app/permissions.py`."""
    read, write = f"{name.plural}:read", f"{name.plural}:write"
    added = (
        f'"{read}": "Read your {name.words}", "{write}": "Change your {name.words}", '
    )
    places = [(*_inside(source, "PERMISSIONS", ast.Dict), added)]
    granted = f'"{read}", "{write}", '
    if "EVERYONE" in dict(_bound(source)):
        places.append((*_inside(source, "EVERYONE", ast.List), granted))
        return _insert(source, places)
    return f"{_insert(source, places)}\nEVERYONE: list[str] = [{granted}]\n"


def navigation(source: str, name: Name) -> str:
    """Add a link to `app/templates/navigation.html`."""
    href = f"{{{{ url_for('{name.plural}.index') }}}}"
    newline = "" if not source or source.endswith("\n") else "\n"
    link = f'<li><a href="{href}">{name.words.capitalize()}</a></li>'
    return f"{source}{newline}{link}\n"


def _set_up(source: str) -> ast.Call:
    """Return the call of `bulwark.init_app`, which all blueprints precede."""
    calls = [
        node.value
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Call)
        and ast.unparse(node.value.func) in ("bulwark.init_app", "init_app")
        and node.value.args
        and ast.unparse(node.value.args[0]) == "app"
    ]
    if len(calls) != 1:
        raise RefusedError(
            "app/__init__.py has no line `bulwark.init_app(app, …)`, above which the"
            " new blueprints would be registered."
        )
    return calls[0]


def _inside(source: str, name: str, kind: type[ast.Dict | ast.List]) -> tuple[int, int]:
    """Return the place behind the opening bracket of a constant."""
    for node in ast.parse(source).body:
        targets = (
            [node.target]
            if isinstance(node, ast.AnnAssign)
            else getattr(node, "targets", [])
        )
        value = getattr(node, "value", None)
        if [ast.unparse(target) for target in targets] == [name]:
            if isinstance(value, kind):
                return value.lineno, value.col_offset + 1
            break
    brackets = "{}" if kind is ast.Dict else "[]"
    raise RefusedError(
        f"app/permissions.py has no `{name} = {brackets}` to add permissions to."
        f" Write one, or leave out the API: --no-api"
    )


def _bound(source: str) -> Iterator[tuple[str, str]]:
    """Yield each name of a module, and where it comes from."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield alias.asname or alias.name, f"{node.module}.{alias.name}"
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.asname or alias.name.partition(".")[0], alias.name
        elif isinstance(node, ast.ClassDef | ast.FunctionDef):
            yield node.name, "here"
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id, "here"
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                yield ast.unparse(target), "here"


def _with_imports(source: str, imports: str) -> str:
    """Add imports above the first one; ruff sorts and joins them."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            if getattr(node, "module", "") != "__future__":
                return _insert(source, [(node.lineno, 0, imports)])
        elif not isinstance(node, ast.Expr):
            return _insert(source, [(node.lineno, 0, f"{imports}\n\n")])
    return f"{source}\n{imports}"


def _insert(source: str, places: Places) -> str:
    lines = source.encode().splitlines(keepends=True)
    for line, column, text in sorted(places, reverse=True):
        there = lines[line - 1]
        lines[line - 1] = there[:column] + text.encode() + there[column:]
    return b"".join(lines).decode()
