"""The team debugs with a tool of its own."""

from pathlib import Path

from tests.template.edits import replace

OWNER = "template"
DEV = '  "import-linter>=2.3",\n'


def edit(service: Path) -> None:
    project = service / "pyproject.toml"
    replace(project, DEV, f'{DEV}  "ipdb>=0.13",\n')
