"""The team has more threads."""

from pathlib import Path

from tests.template.edits import replace

OWNER = "template"


def edit(service: Path) -> None:
    replace(service / "gunicorn.conf.py", "threads = 6\n", "threads = 16\n")
