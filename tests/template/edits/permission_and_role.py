"""Bookkeepers see the books."""

from pathlib import Path

from tests.template.edits import append, replace

OWNER = "team"
VIEW = '''

from bulwark import permission


@blueprint.get("/books")
@permission("books:read")
def books() -> ResponseReturnValue:
    """Show the books."""
    return "Books"
'''


def edit(service: Path) -> None:
    permissions = service / "app/permissions.py"
    replace(permissions, "str] = {}", 'str] = {"books:read": "See the books"}')
    replace(permissions, "str]] = {}", 'str]] = {"bookkeeper": ["books:read"]}')
    append(service / "app/views.py", VIEW)
