"""The team imports something in the base."""

from pathlib import Path

from tests.template.edits import replace

OWNER = "template"
FIRST = "from pathlib import Path\n"


def edit(service: Path) -> None:
    pages = service / "bulwark/web/pages.py"
    replace(pages, FIRST, f"import hashlib\n{FIRST}")
