"""The team has attributes of git."""

from pathlib import Path

from tests.template.edits import write

OWNER = "team"


def edit(service: Path) -> None:
    write(
        service / ".gitattributes",
        "*.py text=auto\n*.bat text eol=crlf\nuv.lock -diff\n",
    )
