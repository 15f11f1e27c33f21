"""The team's web may take more memory."""

from pathlib import Path

from tests.template.edits import replace

OWNER = "template"
WEB = "    mem_limit: 1g\n    volumes:\n"


def edit(service: Path) -> None:
    replace(service / "compose.yaml", WEB, WEB.replace("1g", "2g"))
