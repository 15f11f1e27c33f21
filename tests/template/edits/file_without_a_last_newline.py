"""An editor of the team's ends files without a newline."""

from pathlib import Path

from tests.template.edits import write

OWNER = "team"


def edit(service: Path) -> None:
    style = service / "app/static/app.css"
    style.write_text(style.read_text().rstrip("\n"))
    write(service / "docs/VERSION", "1.4")
