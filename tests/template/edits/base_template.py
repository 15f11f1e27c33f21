"""The team names itself below every page."""

from pathlib import Path

from tests.template.edits import replace

OWNER = "template"


def edit(service: Path) -> None:
    replace(
        service / "bulwark/templates/bulwark/layout.html",
        "<footer>\n",
        "<footer>\n  <p>Acme</p>\n",
    )
